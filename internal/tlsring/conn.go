package tlsring

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// conn is one connection.
type conn struct {
	fd     int
	wire   wire
	tls    *tls.Conn
	sync   uint64 // Ring.syncs when something was put into the inner TX ring
	open   bool   // the handshake is over, and was good
	held   bool   // the inner ring holds it
	ended  bool   // nothing follows
	told   bool   // the close notice was given
	cause  error  // of that, if it is not the socket's
	listed bool   // in Ring.pending
	gone   bool
}

const (
	// recordMost is the most payload of a TLS record.
	recordMost = 16 << 10
	// earlyMost is how much a peer may send before its handshake is over, bytes,
	// until it has to wait.
	earlyMost = 128 << 10
)

var errTxFull = errors.New("no room in the tx ring after a push")

// encrypt takes the plaintext out of the TX ring. What follows each other for one
// connection becomes one record, as far as that takes it.
func (r *Ring) encrypt() error {
	var err error
	for i := r.sent; i != r.tx.Head && err == nil; {
		slot := r.tx.Slot(i)
		c, b := r.conns[slot.Fd()], r.tx.Payload(slot)
		i = r.tx.Next(i)
		if i != r.tx.Head && r.tx.Slot(i).Fd() == slot.Fd() {
			r.record = append(r.record[:0], b...)
			for i != r.tx.Head && r.tx.Slot(i).Fd() == slot.Fd() && len(r.record) < recordMost {
				r.record = append(r.record, r.tx.Payload(r.tx.Slot(i))...)
				i = r.tx.Next(i)
			}
			b = r.record
		}
		if c == nil || !c.open || len(b) == 0 {
			continue // it has just ended
		}
		if _, e := c.tls.Write(b); errors.Is(e, errTxFull) {
			err = e
		} // else the connection has ended, which is told in its place
	}
	r.sent = r.tx.Head
	r.tx.Tail = (r.tx.Head + slots - 1) % slots
	return err
}

// send puts records into the inner TX ring, and pushes it when it is full: all that is
// in it may leave.
func (r *Ring) send(c *conn, b []byte) error {
	tx := r.Inner.TX()
	for len(b) > 0 {
		if tx.Space() == 0 {
			if err := r.push(); err != nil {
				return err
			}
			if tx.Space() == 0 {
				return errTxFull
			}
		}
		s := tx.Slot(tx.Head)
		n := copy(tx.Buf(s), b)
		s.SetFd(c.fd)
		s.SetDoff(0)
		s.Len = uint16(n)
		tx.Head = tx.Next(tx.Head)
		tx.Cur = tx.Head
		b = b[n:]
		c.sync = r.syncs
	}
	return nil
}

// decrypt fills the RX ring. What finds no room stays where it is.
func (r *Ring) decrypt() error {
	pending := r.pending
	r.pending = r.pending[len(r.pending):]
	for i, c := range pending {
		c.listed = false
		if !c.gone && !r.fill(c) {
			r.pending = append(slices.Clone(pending[i+1:]), r.pending...)
			return nil
		}
	}
	rx := r.Inner.RX()
	for !rx.Empty() && r.room() {
		slot := rx.Slot(rx.Head)
		if c := r.conns[slot.Fd()]; c != nil {
			r.received(c, slot)
		}
		rx.Head = rx.Next(rx.Head)
		rx.Cur = rx.Head
	}
	return nil
}

// received takes in an inner slot.
func (r *Ring) received(c *conn, slot *pasteapi.Slot) {
	payload := r.Inner.RX().Payload(slot)
	switch {
	case c.ended:
		return
	case slot.Closed():
		c.wire.end()
	case !c.open:
		r.fed = true
		if c.wire.feed(payload) > earlyMost && !c.held {
			c.held = r.Inner.Hold(c.fd) == nil
		}
		return
	default:
		c.wire.lend(payload)
		defer c.wire.unlend()
	}
	if c.open {
		r.fill(c)
	}
}

// room says whether there is a free RX slot.
func (r *Ring) room() bool { return r.rx.Next(r.rx.Tail) != r.rx.Head }

// fill moves what has arrived of a connection into the RX ring. It reports false if
// there was no room, and something may be left.
func (r *Ring) fill(c *conn) bool {
	for !c.ended {
		if !r.room() {
			r.later(c)
			return false
		}
		slot := r.rx.Slot(r.rx.Tail)
		n, err := c.tls.Read(r.rx.Buf(slot)[doff:])
		if n > 0 {
			r.give(c, slot, n)
		}
		switch {
		case err == nil:
		case errors.As(err, new(wouldBlock)):
			return true
		case errors.Is(err, io.EOF), c.wire.eof:
			c.ended = true
		default:
			r.fail(c, err)
		}
	}
	return r.giveEnd(c)
}

// give fills a slot.
func (r *Ring) give(c *conn, slot *pasteapi.Slot, n int) {
	slot.SetFd(c.fd)
	slot.SetDoff(doff)
	slot.Len = uint16(doff + n)
	slot.Flags = pasteapi.NS_COPIED
	r.rx.Tail = r.rx.Next(r.rx.Tail)
}

// giveEnd gives the close notice.
func (r *Ring) giveEnd(c *conn) bool {
	if c.told {
		return true
	}
	if !r.room() {
		r.later(c)
		return false
	}
	slot := r.rx.Slot(r.rx.Tail)
	r.give(c, slot, 0)
	slot.Flags = 0
	c.told = true
	return true
}

func (r *Ring) later(c *conn) {
	if !c.listed {
		c.listed = true
		r.pending = append(r.pending, c)
	}
}

// fail ends a connection for what is wrong with its records.
func (r *Ring) fail(c *conn, cause error) {
	c.ended = true
	c.cause = fmt.Errorf("tls: %w", cause)
}

// CloseWrite sends the end of the stream, that of TLS and that of TCP. The inner TX
// ring has taken all that was sent before.
func (r *Ring) CloseWrite(fd int) error {
	if c := r.conns[fd]; c != nil && c.open {
		if err := c.tls.CloseWrite(); err == nil && c.sync == r.syncs {
			if err := r.push(); err != nil {
				return err
			}
		}
	}
	return os.NewSyscallError("shutdown", unix.Shutdown(fd, unix.SHUT_WR))
}
