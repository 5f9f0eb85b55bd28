package receive

import (
	"sync/atomic"

	"github.com/pastenet/paste/bpf"
)

// none ends a list of tickets.
const none = 0

// ticketList are the tickets of one stream that are in flight, oldest first.
type ticketList struct {
	first, last uint16
	n           int
}

// part is a payload, or a piece of one, in a frame.
type part struct {
	frame    uint32
	off, len uint16
}

// ticketInfo is what this side remembers of a ticket: which frames it stands
// for. The other half, which the verdict program checks, is bpf.TicketEntry.
type ticketInfo struct {
	stream *Stream // nil when the connection has gone meanwhile
	parts  []part  // in order; more than one when segments were merged
	seq    uint32
	length uint32 // bytes in all parts
	epoch  uint32 // sweep during which it was issued
	batch  uint32 // and the injection batch that it is part of
	gen    uint16
	next   uint16 // neighbours in the stream's list, oldest first
	prev   uint16
	busy   bool
}

// tickets hands out claim tickets and takes them back. A ticket is in flight
// from injection until the kernel's verdict claims it or this side reclaims
// it; a compare-and-exchange on the shared state decides which.
type tickets struct {
	shared []bpf.TicketEntry
	info   []ticketInfo
	free   []uint16 // ring; first in, first out, so that generations last long
	head   uint32
	count  uint32
	epoch  uint32
	batch  uint32 // that is being made
	hand   uint16 // where reclaimOld looks next
}

func newTickets(shared []bpf.TicketEntry) *tickets {
	t := &tickets{
		shared: shared,
		info:   make([]ticketInfo, len(shared)),
		free:   make([]uint16, len(shared)),
	}
	for i := 1; i < len(shared); i++ {
		t.free[i-1] = uint16(i)
	}
	t.count = uint32(len(shared) - 1)
	return t
}

// any says whether a ticket is in flight.
func (t *tickets) any() bool { return int(t.count) < len(t.free)-1 }

// issue makes a ticket for a payload, or returns 0 when all are in flight.
func (t *tickets) issue(s *Stream, frame uint32, off, length int, seq uint32) uint32 {
	if t.count == 0 {
		return 0
	}
	slot := t.free[t.head]
	t.head = (t.head + 1) & uint32(len(t.free)-1)
	t.count--

	i := &t.info[slot]
	i.gen++
	i.stream, i.seq, i.length, i.busy = s, seq, uint32(length), true
	i.epoch, i.batch = t.epoch, t.batch
	i.parts = append(i.parts[:0], part{frame, uint16(off), uint16(length)})
	i.next, i.prev = none, s.tickets.last
	if s.tickets.last != none {
		t.info[s.tickets.last].next = slot
	} else {
		s.tickets.first = slot
	}
	s.tickets.last = slot
	s.tickets.n++

	e := &t.shared[slot]
	e.Cookie, e.Seq, e.Len = s.Cookie, seq, uint32(length)
	atomic.StoreUint32(&e.State, uint32(i.gen)<<2|bpf.TicketInFlight)
	return uint32(slot) | uint32(i.gen)<<16
}

// extend adds the payload that follows to a ticket whose frame was not injected
// yet.
func (t *tickets) extend(slot uint16, frame uint32, off, length int) {
	i := &t.info[slot]
	i.parts = append(i.parts, part{frame, uint16(off), uint16(length)})
	i.length += uint32(length)
	t.shared[slot].Len = i.length
}

// reclaim takes a ticket back from the kernel. It fails when the kernel has
// claimed it; then a delivery is on its way.
func (t *tickets) reclaim(slot uint16) bool {
	gen := uint32(t.info[slot].gen) << 2
	return atomic.CompareAndSwapUint32(&t.shared[slot].State, gen|bpf.TicketInFlight, gen|bpf.TicketFree)
}

// reclaimOld takes back one ticket of an earlier batch, or returns none. It goes
// round the table, so who has most tickets loses most.
func (t *tickets) reclaimOld() (slot uint16) {
	for range t.info {
		slot = t.hand
		t.hand = (t.hand + 1) & uint16(len(t.info)-1)
		if i := &t.info[slot]; i.busy && i.batch != t.batch && t.reclaim(slot) {
			return slot
		}
	}
	return none
}

// retire ends a ticket that was claimed or reclaimed; its frames are the
// caller's now.
func (t *tickets) retire(slot uint16) {
	i := &t.info[slot]
	if s := i.stream; s != nil {
		t.unlink(s, slot)
	}
	i.stream, i.busy = nil, false
	t.free[(t.head+t.count)&uint32(len(t.free)-1)] = slot
	t.count++
}

// unlink takes a ticket out of its connection's list.
func (t *tickets) unlink(s *Stream, slot uint16) {
	i := &t.info[slot]
	if i.prev != none {
		t.info[i.prev].next = i.next
	} else {
		s.tickets.first = i.next
	}
	if i.next != none {
		t.info[i.next].prev = i.prev
	} else {
		s.tickets.last = i.prev
	}
	s.tickets.n--
}
