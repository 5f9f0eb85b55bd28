package httpd

import (
	"slices"
	"time"

	"github.com/pastenet/paste/internal/ringserve"
	"github.com/pastenet/paste/pmem"
)

// sendWindow is the most bytes that wait to be sent to one client: what is more
// is produced when the client has taken half of it, and nothing else that it
// asked for is looked at before. So a client has as much of the server's memory
// and of its time in a batch as another one, however much it asks for at once,
// and one that reads is never given up.
const sendWindow = 256 << 10

// wholeReply is the length in bytes up to which a reply is written in one go.
const wholeReply = 4096

// output is what is sent to a client.
type output struct {
	ringserve.Out

	// What does not fit the window, in order.
	bytes []byte          // not the loop's to change
	frags []pmem.Fragment // their frames' references are the connection's
	more  bool            // then what Handler.More produces

	full   bool // the window is, whatever is left
	parked bool // the answer goes on when records come, see loop.parked
	listed bool // in loop.senders
}

// sending reports whether c has to take some of its answers before anything
// else happens.
func (c *conn) sending() bool {
	o := &c.out
	return o.full || o.more || o.parked || len(o.bytes) > 0 || len(o.frags) > 0
}

// roomToSend is how much of c's window is free, in bytes.
func (l *loop) roomToSend(c *conn) int { return sendWindow - l.Queued(c.fd, &c.out.Out) }

// sends notes that c has something to send.
func (l *loop) sends(c *conn) {
	if !c.out.listed {
		c.out.listed = true
		l.senders = append(l.senders, c)
	}
}

// reply sends b, now as far as the window allows. What is left is b's own
// memory: it must not change.
func (l *loop) reply(c *conn, b []byte) error {
	if o := &c.out; len(o.bytes) > 0 {
		o.bytes = append(slices.Clip(o.bytes), b...)
		return nil
	}
	room := l.roomToSend(c)
	if len(b) > wholeReply && len(b) > room {
		room = max(room, 0)
		c.out.bytes, b = b[room:], b[:room]
		l.sends(c)
	}
	if err := l.Write(c.fd, &c.out.Out, b); err != nil {
		return err
	}
	if len(b) >= room {
		c.out.full = true
		l.sends(c)
	}
	return nil
}

// proceed goes on with the answers whose clients have taken what came before.
func (l *loop) proceed() error {
	for i := 0; i < len(l.senders); i++ { // the list may grow
		c := l.senders[i]
		if c.phase == dead || l.roomToSend(c) < sendWindow/2 {
			continue
		}
		if err := l.produce(c); err != nil {
			return err
		}
		if !c.sending() && c.phase == serving {
			if err := l.resume(c); err != nil {
				return err
			}
		}
	}
	l.senders = slices.DeleteFunc(l.senders, func(c *conn) bool {
		if c.phase != dead && c.sending() && !c.out.parked {
			return false
		}
		c.out.listed = false
		return true
	})
	return nil
}

// produce writes what is left of c's answers, as far as the window allows.
func (l *loop) produce(c *conn) error {
	o := &c.out
	o.full = false
	for c.sending() && !o.parked && c.phase != dead {
		var err error
		switch {
		case len(o.bytes) > 0:
			b := o.bytes
			o.bytes = nil
			err = l.reply(c, b)
		case len(o.frags) > 0:
			f := o.frags[0]
			if o.frags = o.frags[1:]; len(o.frags) == 0 {
				o.frags = nil
			}
			err = l.WriteFrame(c.fd, &c.out.Out, f)
		case o.more:
			o.more = false
			if c.reading != nil {
				err = l.moreOfLog(c)
				break
			}
			l.x.c = c
			err = l.handler.More(&l.x)
		}
		if err != nil {
			return err
		}
		if l.roomToSend(c) <= 0 {
			o.full = true
			return nil
		}
		o.full = false
	}
	return nil
}

// postpone keeps what a client has sent behind requests whose answers it has
// not taken yet: payload, at byte off of the segment's frame.
func (l *loop) postpone(c *conn, seg *segment, off int, payload []byte) error {
	var ok bool
	var err error
	if seg.run || len(payload) < l.s.pool.FrameSize()/4 {
		ok, err = l.keepCopy(c, &c.late, payload)
	} else {
		ok, err = l.keepFrame(c, &c.late, seg, off, len(payload))
	}
	if err == nil && !ok {
		l.n.Evicted++
		l.abort(c) // it has sent more than the pool can hold, and reads too slowly
	}
	return err
}

// resume looks at what was postponed.
func (l *loop) resume(c *conn) error {
	late := c.late
	c.late = pieces{}
	for i, f := range late.frags {
		if c.phase != serving || c.sending() {
			l.putBack(c, late.frags[i:], late.room)
			break
		}
		l.seg = segment{payload: l.s.pool.Frame(f.Frame)[f.Off : f.Off+f.Len], doff: int(f.Off), frame: f.Frame, kept: true, used: int(f.Off)}
		err := l.input(c, &l.seg)
		l.seg = segment{}
		l.Drop = append(l.Drop, f.Frame)
		l.budget.dropped++
		if err != nil {
			return err
		}
	}
	if c.eof && c.phase == serving && !c.sending() {
		l.hangUp(c)
	}
	return nil
}

// putBack keeps pieces that resume has not come to.
func (l *loop) putBack(c *conn, rest []pmem.Fragment, room int) {
	if c.phase != serving {
		for _, f := range rest {
			l.Drop = append(l.Drop, f.Frame)
		}
		l.budget.dropped += len(rest)
		return
	}
	if c.held() == 0 {
		c.heldSince = l.timer.now
	}
	c.late.frags = append(c.late.frags, rest...)
	c.late.room = room
}

// dropOutput gives up what was not sent.
func (l *loop) dropOutput(c *conn) {
	for _, f := range c.out.frags {
		l.Drop = append(l.Drop, f.Frame)
	}
	if c.out.listed {
		i := slices.Index(l.senders, c)
		l.senders = slices.Delete(l.senders, i, i+1)
	}
	l.unpark(c)
	c.out = output{}
}

// sendTimeout is 0 if a connection only waits for the next push.
func (l *loop) sendTimeout() time.Duration {
	waits := func(c *conn) bool { return l.Waits(&c.out.Out) }
	if slices.ContainsFunc(l.closing, waits) || slices.ContainsFunc(l.senders, waits) {
		return 0
	}
	return tick
}
