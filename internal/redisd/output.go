package redisd

import (
	"slices"
	"time"

	"github.com/pastenet/paste/internal/redisd/resp"
	"github.com/pastenet/paste/internal/ringserve"
)

const (
	// sendWindow is the most bytes that wait to be sent to one client: what is more
	// is written when the client has taken half of it, and nothing else that it
	// asked for is looked at before.
	sendWindow = 256 << 10
	// flushFrom is how long a reply grows before it is written.
	flushFrom = 32 << 10
	// wholeReply is the length in bytes up to which a reply is written in one go.
	wholeReply = 4096
)

// sender is where replies go.
type sender struct {
	ringserve.Tx
	senders []*conn // have more to send than fits
}

// output is what is sent to a client.
type output struct {
	ringserve.Out
	left   resp.Reply // what does not fit the window
	full   bool       // the window is, whatever is left
	listed bool       // in loop.senders
}

// sending reports whether c has to take some of its answers before anything
// else happens.
func (c *conn) sending() bool {
	o := &c.out
	return o.full || len(o.left.B) > 0 || len(o.left.Refs) > 0
}

// roomToSend is how much of c's window is free, in bytes.
func (l *loop) roomToSend(c *conn) int { return sendWindow - l.Queued(c.fd, &c.out.Out) }

// answer writes a client's reply, as far as the window allows, and ends the
// connection if it is to end behind it.
func (l *loop) answer(c *conn) error {
	r := &c.client.R
	left := &c.out.left
	if len(left.B) > 0 || len(left.Refs) > 0 {
		for _, ref := range r.Refs {
			left.Refs = append(left.Refs, resp.Ref{At: ref.At + len(left.B), Frag: ref.Frag})
		}
		left.B = append(left.B, r.B...)
	} else if err := l.send(c, r.B, r.Refs); err != nil {
		return err
	}
	r.B, r.Refs = r.B[:0], r.Refs[:0]
	if c.client.Closing {
		l.hangUp(c)
	}
	return nil
}

// send writes a reply as far as the window allows, and keeps the rest.
func (l *loop) send(c *conn, b []byte, refs []resp.Ref) error {
	if len(b) == 0 && len(refs) == 0 {
		return nil
	}
	room := l.roomToSend(c)
	pos := 0
	for len(refs) > 0 || pos < len(b) {
		end := len(b)
		if len(refs) > 0 {
			end = refs[0].At
		}
		if n := end - pos; n > room && n > wholeReply {
			end = pos + max(room, 0)
		}
		if err := l.Write(c.fd, &c.out.Out, b[pos:end]); err != nil {
			return err
		}
		room -= end - pos
		pos = end
		if len(refs) > 0 && refs[0].At == pos && room > 0 {
			if err := l.WriteFrame(c.fd, &c.out.Out, refs[0].Frag); err != nil {
				return err
			}
			room -= int(refs[0].Frag.Len)
			refs = refs[1:]
		}
		if room <= 0 {
			break
		}
	}
	c.out.full = room <= 0
	if pos < len(b) || len(refs) > 0 {
		rest := resp.Reply{B: slices.Clone(b[pos:])}
		for _, ref := range refs {
			rest.Refs = append(rest.Refs, resp.Ref{At: ref.At - pos, Frag: ref.Frag})
		}
		c.out.left = rest
	}
	if c.sending() && !c.out.listed {
		c.out.listed = true
		l.senders = append(l.senders, c)
	}
	return nil
}

// proceed goes on with the answers whose clients have taken what came before.
func (l *loop) proceed() error {
	if len(l.senders) == 0 {
		return nil
	}
	for i := 0; i < len(l.senders); i++ { // the list may grow
		c := l.senders[i]
		if c.phase == dead || l.roomToSend(c) < sendWindow/2 {
			continue
		}
		left := c.out.left
		c.out.left, c.out.full = resp.Reply{}, false
		if err := l.send(c, left.B, left.Refs); err != nil {
			return err
		}
		if !c.sending() && c.phase == serving {
			if err := l.resume(c); err != nil {
				return err
			}
		}
	}
	l.senders = slices.DeleteFunc(l.senders, func(c *conn) bool {
		if c.phase != dead && c.sending() {
			return false
		}
		c.out.listed = false
		return true
	})
	return nil
}

// dropOutput gives up what was not sent.
func (l *loop) dropOutput(c *conn) {
	for _, ref := range c.out.left.Refs {
		l.Drop = append(l.Drop, ref.Frag.Frame)
	}
	if c.out.listed {
		l.senders = slices.DeleteFunc(l.senders, func(o *conn) bool { return o == c })
	}
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

// dropFrames gives up the references that are not needed any more.
func (l *loop) dropFrames() {
	if len(l.Drop) > 0 {
		l.s.db.Pool().UnrefAll(l.Drop)
		l.Drop = l.Drop[:0]
	}
}
