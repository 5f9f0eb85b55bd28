package redisd

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pastenet/paste/internal/redisd/resp"
	"github.com/pastenet/paste/pasteapi"
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

var (
	errTxFull = errors.New("no room in the tx ring after a push")
	errNoHome = errors.New("the buffer of a tx slot is lost")
)

// sender is where replies go.
type sender struct {
	tx      *pasteapi.NetmapRing
	syncs   uint64   // how often the TX ring was pushed
	lent    []uint32 // by TX slot: the frame that is sent from it and is not the ring's own, or 0
	home    []uint32 // buffers that such frames have displaced
	drop    []uint32 // frames whose reference is given up at the end of the batch
	senders []*conn  // have more to send than fits
}

// output is what is sent to a client.
type output struct {
	sync    uint64 // loop.syncs when the last TX slot was written
	slot    uint32 // that slot
	written int64  // bytes of all replies
	pushed  int64  // of those before the ones of the last sync

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
func (l *loop) roomToSend(c *conn) int {
	waits := l.ring.TxQueued(c.fd)
	if c.out.sync == l.syncs {
		waits += int(c.out.written - c.out.pushed)
	}
	return sendWindow - waits
}

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
		if err := l.write(c, b[pos:end]); err != nil {
			return err
		}
		room -= end - pos
		pos = end
		if len(refs) > 0 && refs[0].At == pos && room > 0 {
			if err := l.sendFrame(c, refs[0].Frag); err != nil {
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
		l.drop = append(l.drop, ref.Frag.Frame)
	}
	if c.out.listed {
		l.senders = slices.DeleteFunc(l.senders, func(o *conn) bool { return o == c })
	}
	c.out = output{}
}

// sendTimeout is 0 if a connection only waits for the next push.
func (l *loop) sendTimeout() time.Duration {
	waits := func(c *conn) bool { return c.out.sync == l.syncs }
	if slices.ContainsFunc(l.closing, waits) || slices.ContainsFunc(l.senders, waits) {
		return 0
	}
	return tick
}

// write writes b into TX slots. They leave with the next push.
func (l *loop) write(c *conn, b []byte) error {
	// Another reply of this batch to the same client is continued.
	o := &c.out
	if o.sync == l.syncs && l.tx.Next(o.slot) == l.tx.Head && l.lent[o.slot] == 0 {
		slot := l.tx.Slot(o.slot)
		n := copy(l.tx.Buf(slot)[slot.Len:], b)
		slot.Len += uint16(n)
		o.written += int64(n)
		b = b[n:]
	}
	for len(b) > 0 {
		i, err := l.freeSlot()
		if err != nil {
			return err
		}
		if err := l.reclaim(i); err != nil {
			return err
		}
		n := copy(l.tx.Buf(l.tx.Slot(i)), b)
		l.enqueue(c, i, 0, n)
		b = b[n:]
	}
	return nil
}

// freeSlot returns the TX slot that is to be written next, and makes room if
// there is none.
func (l *loop) freeSlot() (uint32, error) {
	if l.tx.Space() == 0 {
		if err := l.push(); err != nil {
			return 0, err
		}
		if l.tx.Space() == 0 {
			return 0, errTxFull
		}
	}
	return l.tx.Head, nil
}

// enqueue sends n bytes of the buffer in freeSlot's slot i, from doff on, with
// the next push.
func (l *loop) enqueue(c *conn, i uint32, doff, n int) {
	slot := l.tx.Slot(i)
	slot.SetFd(c.fd)
	slot.SetDoff(doff)
	slot.Len = uint16(doff + n)
	l.tx.Head = l.tx.Next(i)
	l.tx.Cur = l.tx.Head
	o := &c.out
	if o.sync != l.syncs {
		o.pushed = o.written
	}
	o.sync, o.slot = l.syncs, i
	o.written += int64(n)
}

// push sends what is in the TX ring, in the middle of a batch, when all that it
// speaks of is durable.
func (l *loop) push() error {
	if err := l.s.db.Commit(); err != nil {
		return err
	}
	err := l.ring.TxSync()
	l.syncs++
	if err != nil {
		return fmt.Errorf("push replies: %w", err)
	}
	return nil
}
