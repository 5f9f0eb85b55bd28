package pasteapi

import (
	"fmt"
	"iter"
	"net/netip"

	"github.com/pastenet/paste/pasteapi/internal/dgram"
	"github.com/pastenet/paste/pmem"
)

// Segment is what one RX slot brings: a payload, or the end of a connection. A payload
// lies in one frame, and in several neighbouring ones only after Ring.Expect. It is
// valid until the next sync, or until its ring is closed.
type Segment struct {
	ring    *Ring
	slot    *Slot
	payload []byte
}

// Segments takes what was received out of the RX ring, slot by slot, in order for
// each connection:
//
//	for seg := range ring.Segments() {
//		if seg.Closed() {
//			…
//		}
//	}
//
// A slot belongs to the loop's body and is given back with the next sync; one at
// which the loop is left counts as taken. It allocates nothing.
func (r *Ring) Segments() iter.Seq[Segment] {
	return func(yield func(Segment) bool) { r.segments(yield) }
}

func (r *Ring) segments(yield func(Segment) bool) {
	rx := r.RX()
	if r.closed {
		return
	}
	for !rx.Empty() {
		slot := rx.slot(rx.Head)
		seg := Segment{ring: r, slot: slot}
		if slot.Flags&NS_ERROR == 0 {
			seg.payload = rx.Payload(slot)
		}
		rx.Head = rx.Next(rx.Head)
		rx.Cur = rx.Head
		if !yield(seg) || r.closed {
			return
		}
	}
}

// Fd is the connection's descriptor.
func (s Segment) Fd() int { return s.slot.Fd() }

// Slot is the slot itself, for what a Segment does not have.
func (s Segment) Slot() *Slot { return s.slot }

// Payload are the bytes received, where they lie. They are overwritten after the
// next sync unless Keep has taken them out.
func (s Segment) Payload() []byte { return s.payload }

// Copied says whether the payload was copied, and not received where it lies.
func (s Segment) Copied() bool { return s.slot.Flags&NS_COPIED != 0 }

// Datagram says that this is one datagram of a UDP socket, or, where Err is not nil,
// tells what became of one that was sent.
func (s Segment) Datagram() bool { return s.slot.Flags&NS_DATAGRAM != 0 }

// Peer is who has sent a datagram, or to whom one could not be delivered. Of a
// connection it is the zero AddrPort.
func (s Segment) Peer() netip.AddrPort {
	src, _, _ := s.ring.RX().Addrs(s.slot)
	return src
}

// Local is the address of this host to which a datagram was sent, and from which it is
// answered. Of a connection it is the zero AddrPort.
func (s Segment) Local() netip.AddrPort {
	_, dst, _ := s.ring.RX().Addrs(s.slot)
	return dst
}

// Truncated says that a datagram was longer than the buffer, and Payload is its
// beginning.
func (s Segment) Truncated() bool { return s.slot.Flags&NS_TRUNCATED != 0 }

// Err is not nil where the segment tells that a datagram to Peer was not delivered: an
// errno such as ECONNREFUSED, from an ICMP message. It has no payload then.
func (s Segment) Err() error {
	if s.slot.Flags&NS_ERROR == 0 {
		return nil
	}
	return dgram.Errno(s.ring.RX().Payload(s.slot))
}

// Closed says that this is the close notice: nothing follows on the connection,
// which is the application's to unregister and close. It may still send.
func (s Segment) Closed() bool { return s.slot.Closed() }

// Cause says, of a close notice, why the connection ended: nil for an orderly
// FIN. See Ring.CloseCause.
func (s Segment) Cause() error { return s.ring.CloseCause(s.Fd()) }

// More says that the payload that Ring.Expect has announced does not end with this
// segment.
func (s Segment) More() bool { return s.slot.Flags&NS_MOREFRAG != 0 }

// Keep takes the payload out of the ring without copying it. The caller owns one
// reference of the fragment's frame, and gives it up by pmem.Pool.Unref; a log
// that the fragment is appended to takes a reference of its own. Payload stays
// valid that long. Errors are those of Ring.Keep, and ErrLongSegment where the
// payload is in more than one frame, which may be after Ring.Expect only: KeepAll
// keeps such a one.
func (s Segment) Keep() (pmem.Fragment, error) {
	if size := s.ring.frames.Size(); int(s.slot.Len) > size {
		return pmem.Fragment{}, fmt.Errorf("keep a segment of %d bytes in frames of %d: %w", len(s.payload), size, ErrLongSegment)
	}
	var one [1]pmem.Fragment
	frags, err := s.KeepAll(one[:0])
	if err != nil {
		return pmem.Fragment{}, err
	}
	return frags[0], nil
}

// KeepAll is Keep for a payload of any length: it adds one fragment for each frame,
// in order, to frags. The frames are neighbours, and Payload is one stretch.
func (s Segment) KeepAll(frags []pmem.Fragment) ([]pmem.Fragment, error) {
	doff, end, size := s.slot.Doff(), int(s.slot.Len), s.ring.frames.Size()
	frame, err := s.ring.Keep(s.slot)
	if err != nil {
		return frags, err
	}
	for {
		f := pmem.Fragment{Frame: frame, Off: uint16(doff), Len: uint16(min(end, size) - doff)}
		frags = append(frags, f)
		if end <= size {
			return frags, nil
		}
		doff, end, frame = 0, end-size, frame+1
	}
}

// Forward sends the payload on a connection, from the buffer in which it lies:
// the RX slot and a TX slot exchange their buffers. Payload must not be used any
// more. With ErrTxFull nothing has happened. What lies in a run of frames (NS_RUN) is
// copied. A datagram that goes to its own socket goes back to its sender; on another one
// it goes to the peer that that is connected to.
func (s Segment) Forward(fd int) error {
	tx := s.ring.TX()
	if s.ring.closed {
		return ErrClosed
	}
	if s.slot.Flags&NS_RUN != 0 {
		return s.ring.Send(fd, s.payload)
	}
	if tx.Empty() {
		return ErrTxFull
	}
	in, out := s.slot, tx.slot(tx.Head)
	in.BufIdx, out.BufIdx = out.BufIdx, in.BufIdx
	in.Flags |= NS_BUF_CHANGED
	out.Flags = NS_BUF_CHANGED
	out.Len, out.Ptr = in.Len, in.Ptr
	out.SetFd(fd)
	if s.Datagram() {
		s.address(tx.Buf(out), out, fd)
	}
	tx.Head = tx.Next(tx.Head)
	tx.Cur = tx.Head
	return nil
}

// address says where a datagram goes that is forwarded.
func (s Segment) address(buf []byte, out *Slot, fd int) {
	switch {
	case s.slot.Flags&NS_ERROR != 0:
		out.Len, out.Ptr = 0, 0 // it is none
	case fd == s.Fd():
		dgram.Turn(buf, out.Doff())
	default:
		dgram.SetAddrs(buf, netip.AddrPort{}, netip.AddrPort{}, out.Doff() == dgram.Doff6, int(out.Len)-out.Doff())
	}
}

// Reply sends bytes back on the connection, or a datagram to the sender of this one,
// from the address that it came to. See Ring.Send and SendTo.
func (s Segment) Reply(b []byte) error {
	if s.Datagram() {
		return s.ring.SendTo(s.Fd(), b, s.Peer(), s.Local())
	}
	return s.ring.Send(s.Fd(), b)
}

// Send copies bytes into as many TX slots as they take; they leave with the next
// TxSync or Poll. With ErrTxFull nothing was put into the ring: what is there has
// to be sent first, and what the bytes answer may have to be made durable before
// that.
func (r *Ring) Send(fd int, b []byte) error {
	if r.closed {
		return ErrClosed
	}
	if c := r.conns.Find(fd); c != nil && c.dgram != nil {
		return r.SendTo(fd, b, netip.AddrPort{}, netip.AddrPort{})
	}
	tx, size := r.TX(), r.frames.Size()
	if need := (len(b) + size - 1) / size; need > int(tx.Space()) {
		if need >= int(tx.NumSlots) {
			return fmt.Errorf("send %d bytes: a ring of %d slots takes %d at once", len(b), tx.NumSlots, (int(tx.NumSlots)-1)*size)
		}
		return ErrTxFull
	}
	for len(b) > 0 {
		s := tx.Slot(tx.Head)
		n := copy(tx.Buf(s), b)
		s.SetFd(fd)
		s.SetDoff(0)
		s.Len = uint16(n)
		tx.Head = tx.Next(tx.Head)
		tx.Cur = tx.Head
		b = b[n:]
	}
	return nil
}
