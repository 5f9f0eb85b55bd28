package pasteapi

import (
	"fmt"

	"github.com/pastenet/paste/pasteapi/internal/frames"
	"github.com/pastenet/paste/pasteapi/internal/receive"
	"github.com/pastenet/paste/pasteapi/internal/send"
)

// ringView is the port's own copy of a ring's state. The ring itself is the
// application's memory and nothing in it is trusted: what a sync reads there
// is checked against this first.
type ringView struct {
	name       string
	ring       *NetmapRing
	frames     *frames.Frames
	slots      uint32
	first, end uint32   // valid buffer indices
	head       uint32   // up to here the application has given slots back
	tail       uint32   // up to here it owns them
	bufs       []uint32 // buffer of each slot, owned by the ring
	counts     []uint32 // bytes that the connection of an RX slot has brought with it, modulo 1<<32
}

// next is the slot after i. Unlike NetmapRing.Next it does not read the ring.
func (v *ringView) next(i uint32) uint32 {
	if i++; i == v.slots {
		return 0
	}
	return i
}

// distance is the number of slots from a up to b.
func (v *ringView) distance(a, b uint32) uint32 {
	if b >= a {
		return b - a
	}
	return b + v.slots - a
}

// The RX ring is where package receive puts payload.

// Free is how many more slots can be filled; one always stays empty.
func (v *ringView) Free() int { return int(v.slots - 1 - v.distance(v.head, v.tail)) }

// Fill gives the application a payload in the next slot.
func (v *ringView) Fill(fd int, p receive.Payload) (old uint32) {
	s := v.ring.slot(v.tail)
	old = v.bufs[v.tail]
	v.bufs[v.tail] = p.Frame
	v.counts[v.tail] = p.Count
	s.set(p.Frame, fd, p.Off, p.Len)
	s.Flags = NS_BUF_CHANGED | p.Flags
	v.tail = v.next(v.tail)
	return old
}

// FillDatagram gives the application a datagram in the next slot.
func (v *ringView) FillDatagram(fd int, frame uint32, doff, n int, flags uint16) (old uint32) {
	return v.Fill(fd, receive.Payload{Frame: frame, Off: doff, Len: n, Flags: flags})
}

// End gives the application a close notice in the next slot.
func (v *ringView) End(fd int) {
	s := v.ring.slot(v.tail)
	s.set(v.bufs[v.tail], fd, 0, 0)
	s.Flags = 0
	v.tail = v.next(v.tail)
}

// untaken is how many bytes of a connection, which has brought handed bytes in all,
// are in slots that the application has not taken out yet.
func (v *ringView) untaken(fd int, handed uint32) (n int64) {
	head := v.ring.Head
	if head >= v.slots || v.distance(v.head, head) > v.distance(v.head, v.tail) {
		return 0 // the next sync tells the application
	}
	last := head - 1
	if head == 0 {
		last = v.slots - 1
	}
	if v.ring.slot(last).Fd() == fd { // it is the one that was just taken
		return int64(handed - v.counts[last])
	}
	for i := head; i != v.tail; i = v.next(i) {
		if s := v.ring.slot(i); s.Fd() == fd {
			n += int64(s.Len) - int64(s.Doff())
		}
	}
	return n
}

// The TX ring is what package send takes payload from. Slots have been checked.

// Slot is the payload of a slot.
func (v *ringView) Slot(i uint32) send.Slot {
	s := v.ring.slot(i)
	return send.Slot{Frame: v.bufs[i], Off: s.Doff(), End: int(s.Len)}
}

// Datagram is a slot's buffer, and where its payload begins and ends.
func (v *ringView) Datagram(i uint32) (frame uint32, doff, end int) {
	s := v.ring.slot(i)
	return v.bufs[i], s.Doff(), int(s.Len)
}

// Exchange puts another buffer into a slot.
func (v *ringView) Exchange(i, frame uint32) {
	s := v.ring.slot(i)
	s.BufIdx = frame
	s.Flags |= NS_BUF_CHANGED
	v.bufs[i] = frame
}

// accept checks what the application did since the last sync and returns how
// many slots it gave back, from v.head on. A broken rule repairs the ring, as
// netmap's netmap_ring_reinit does, and gives nothing back.
func (v *ringView) accept() (uint32, error) {
	n := v.ring
	head, cur := n.Head, n.Cur
	owned := v.distance(v.head, v.tail)
	if n.NumSlots != v.slots {
		return 0, v.repair("num_slots", uint64(n.NumSlots), fmt.Sprint(v.slots))
	}
	// An overwritten tail is put right; nothing depends on it.
	n.Tail = v.tail
	if head >= v.slots || v.distance(v.head, head) > owned {
		return 0, v.repair("head", uint64(head), fmt.Sprintf("from %d to %d", v.head, v.tail))
	}
	given := v.distance(v.head, head)
	if cur >= v.slots || v.distance(v.head, cur) > owned || v.distance(v.head, cur) < given {
		return 0, v.repair("cur", uint64(cur), fmt.Sprintf("from %d to %d", head, v.tail))
	}
	for i, left := v.head, given; left > 0; i, left = v.next(i), left-1 {
		s := n.slot(i)
		s.Flags &^= NS_BUF_CHANGED
		if s.BufIdx == v.bufs[i] {
			continue
		}
		if limit := v.forbids(s.BufIdx); limit != "" {
			return 0, v.repairSlots(i, left, limit)
		}
		v.frames.Swap(v.bufs[i], s.BufIdx)
		v.bufs[i] = s.BufIdx
	}
	return given, nil
}

// forbids says what a buffer that the application put into a slot would have
// to be, or "" if it is. The one it took out is its own now, this one is the
// ring's: what goes back to the NIC must not be part of anything else; what is
// sent may be.
func (v *ringView) forbids(buf uint32) (limit string) {
	if buf < v.first || buf >= v.end {
		return fmt.Sprintf("from %d to %d", v.first, v.end-1)
	}
	if refs := v.frames.Refs(buf); refs == 0 || refs > 1 && v.name == "rx" {
		return "a buffer of which the application owns the only reference"
	}
	return ""
}

// repairSlots gives slot i, and those of the next left-1 that are as wrong,
// their own buffers back: with one that merely belongs to somebody else, which
// repair does not recognise, later syncs would fail as well.
func (v *ringView) repairSlots(i, left uint32, limit string) error {
	field, bad := fmt.Sprintf("slot %d buf_idx", i), v.ring.slot(i).BufIdx
	for ; left > 0; i, left = v.next(i), left-1 {
		if s := v.ring.slot(i); s.BufIdx != v.bufs[i] && v.forbids(s.BufIdx) != "" {
			s.BufIdx = v.bufs[i]
			s.Len = 0
		}
	}
	return v.repair(field, uint64(bad), limit)
}

func (v *ringView) repair(field string, value uint64, limit string) error {
	n := v.ring
	n.NumSlots = v.slots
	n.Head, n.Cur, n.Tail = v.head, v.head, v.tail
	for i := range v.slots {
		if s := n.slot(i); s.BufIdx < v.first || s.BufIdx >= v.end {
			s.BufIdx = v.bufs[i]
			s.Len = 0
		}
	}
	return &RingError{Ring: v.name, Field: field, Value: value, Limit: limit}
}
