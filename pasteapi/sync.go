package pasteapi

import (
	"errors"
	"fmt"

	"github.com/pastenet/paste/pasteapi/internal/send"
	"golang.org/x/sys/unix"
)

// rxSync takes slots back that were given back, and fills free ones with what has
// arrived. It returns how many slots the application owns.
func (r *Ring) rxSync() (int, error) {
	if r.closed {
		return 0, ErrClosed
	}
	v := &r.pair.rx
	given, err := v.accept()
	if err != nil {
		r.own.RingErrors++
		return 0, err
	}
	for i := v.head; given > 0; i, given = v.next(i), given-1 {
		v.bufs[i] = r.frames.Trade(v.bufs[i])
		v.ring.slot(i).BufIdx = v.bufs[i]
		r.in.Room()
	}
	v.head = v.ring.Head
	if err := r.in.Fetch(); err != nil {
		return 0, err
	}
	r.relieve()
	r.in.Emit(v)
	r.udp.in.Receive(v)
	if v.ring.Tail != v.tail {
		v.ring.Tail = v.tail
		stamp(v.ring)
	}
	r.checkInvariants()
	return int(v.distance(v.head, v.tail)), nil
}

// txSync sends the slots that were given since the last sync.
func (r *Ring) txSync() error {
	if r.closed {
		return ErrClosed
	}
	v := &r.pair.tx
	given, err := v.accept()
	if err != nil {
		r.own.RingErrors++
		return err
	}
	if given == 0 {
		return r.closeSent()
	}
	err = r.collect(given)
	sendErr := r.out.Send()
	r.udp.out.Send()
	r.settle()
	v.head = v.ring.Head
	// One slot always stays empty.
	v.tail = v.head + v.slots - 1
	if v.tail >= v.slots {
		v.tail -= v.slots
	}
	v.ring.Tail = v.tail
	stamp(v.ring)
	err = errors.Join(err, sendErr, r.closeSent())
	r.checkInvariants()
	return err
}

// collect hands the slots to the sender. A slot that breaks the rules is
// emptied.
func (r *Ring) collect(given uint32) (err error) {
	v := &r.pair.tx
	for i := v.head; given > 0; i, given = v.next(i), given-1 {
		s := v.ring.slot(i)
		if e := checkTx(s, i, r.frames.Size()); e != nil {
			err = e
			r.own.RingErrors++
		}
		c := r.conns.Find(s.Fd())
		switch {
		case c != nil && c.dgram != nil && s.Len > 0: // its payload may be empty
			r.udp.out.Add(c.dgram, i)
		case s.Doff() == int(s.Len):
		case c != nil:
			r.out.Add(&c.out, i)
		default:
			r.out.Dropped++
		}
	}
	return err
}

// checkTx looks whether a slot's payload leaves its buffer, or wants what a
// connection cannot do, and empties it then.
func checkTx(s *Slot, i uint32, size int) error {
	if s.Flags&unsupported == 0 && int(s.Len) <= size && s.Doff() <= int(s.Len) {
		return nil
	}
	err := &RingError{Ring: "tx", Field: fmt.Sprintf("slot %d len", i), Value: uint64(s.Len),
		Limit: fmt.Sprintf("from doff (%d) to %d", s.Doff(), size)}
	if s.Flags&unsupported != 0 {
		err.Field, err.Value = fmt.Sprintf("slot %d flags", i), uint64(s.Flags)
		err.Limit = "without NS_FORWARD, NS_NO_LEARN, NS_INDIRECT and NS_TXMON, which mean nothing on a connection"
		s.Flags &^= unsupported
	}
	s.Len = uint16(min(s.Doff(), size))
	if s.Doff() > size {
		s.SetDoff(0)
		s.Len = 0
	}
	return err
}

// settle acts on what became of connections in sending: the receiving side of
// one whose peer does not read is held back, and let go again.
func (r *Ring) settle() {
	for _, e := range r.out.Events() {
		c := r.conns.Find(e.FD)
		if c == nil {
			continue
		}
		switch e.Kind {
		case send.Stuck:
			c.stuck = true
			r.in.Hold(&c.in)
		case send.Free:
			c.stuck = false
			r.goOn(c)
		case send.Failed:
			r.in.DropHeld(&c.in)
			r.in.End(&c.in, e.Cause)
		}
	}
}

// relieve keeps peers that do not read from taking the frames that all others
// need: when frames run low, what waits for them, held or to be sent, has one
// budget, and while the NIC has hardly a frame to receive into, none. Who has most
// loses first: what is held is dropped, which costs a retransmission, and only then
// connections are given up.
func (r *Ring) relieve() {
	budget := r.budget
	if r.in.Starved() {
		budget = 0
	}
	if r.in.Held()+r.out.Held() <= budget || !r.in.Starved() && !r.frames.Low() {
		return
	}
	for r.in.Held()+r.out.Held() > budget {
		if r.in.DropMost() == 0 && !r.out.GiveUp() {
			break
		}
	}
	r.settle()
}

// sweep is called about once a second.
func (r *Ring) sweep() {
	r.in.Sweep()
	r.udp.out.ResumeAll()
	r.report()
	if !r.out.Blocked() {
		return
	}
	// A send that failed for want of memory is followed by no event.
	r.conns.All(func(c *conn) {
		switch {
		case c.out.Bytes() == 0:
		case c.in.Gone():
			// Closed without Unregister: nothing of it may reach the socket
			// that has its number now.
			r.out.Fail(&c.out, unix.EBADF)
		default:
			r.out.Resume(&c.out)
		}
	})
	r.settle()
}
