package netmap

import (
	"fmt"
	"time"
	"unsafe"
)

// ring is the port's own copy of a ring's state. The ring itself is the program's
// memory and nothing in it is trusted: what a sync reads there is checked against
// this first.
type ring struct {
	name  string
	n     *Ring
	slots []Slot
	mem   *Memory
	at    int // in the memory's region
	dir   int
	owner uint32 // of the buffers in the slots

	head, tail uint32   // the program has the slots from head up to tail
	bufs       []uint32 // buffer of each slot that the program has; of TX: of each slot
}

// newRing lays out a ring.
func newRing(m *Memory, dir, id, slots int, owner uint32) (*ring, error) {
	at, err := m.area.alloc(ringSize(slots))
	if err != nil {
		return nil, err
	}
	mem := m.region[at : at+ringSize(slots)]
	clear(mem)
	r := &ring{
		name: [...]string{dirRX: "rx", dirTX: "tx"}[dir] + fmt.Sprint(" ", id),
		n:    (*Ring)(unsafe.Pointer(&mem[0])), mem: m, at: at, dir: dir, owner: owner,
		slots: unsafe.Slice((*Slot)(unsafe.Pointer(&mem[ringHeader])), slots),
		bufs:  make([]uint32, slots),
	}
	r.n.BufOfs = int64(m.buffers + headroom - at)
	r.n.NumSlots = uint32(slots)
	r.n.NrBufSize = uint32(m.BufSize())
	r.n.RingID = uint16(id)
	r.n.Dir = uint16(dir)
	r.n.BufAlign = 64
	if dir == dirRX {
		return r, nil
	}
	if n := m.take(r.bufs, owner); n < slots {
		m.give(r.bufs[:n], owner)
		m.area.free(at)
		return nil, noBuffers(m, slots, n)
	}
	for i, b := range r.bufs {
		r.slots[i].BufIdx = b
	}
	r.tail = uint32(slots - 1)
	r.n.Tail = r.tail
	return r, nil
}

func noBuffers(m *Memory, need, have int) error {
	return fmt.Errorf("%d buffers are needed and memory %d has %d (fewer slots: @conf:slots=N; or more MemoryOptions.Buffers): %w", need, m.id, have, ErrNoMemory)
}

func (r *ring) close() { r.mem.area.free(r.at) }

// next is the slot after i.
func (r *ring) next(i uint32) uint32 {
	if i++; i == uint32(len(r.slots)) {
		return 0
	}
	return i
}

// distance is the number of slots from a up to b.
func (r *ring) distance(a, b uint32) uint32 {
	if b >= a {
		return b - a
	}
	return b + uint32(len(r.slots)) - a
}

// room is how many more slots can be given to the program; one always stays empty.
func (r *ring) room() int { return len(r.slots) - 1 - int(r.distance(r.head, r.tail)) }

// waiting is how many slots the program has from cur on: for these it is woken.
func (r *ring) waiting() bool {
	cur := r.n.Cur
	return cur != r.tail && cur < uint32(len(r.slots))
}

// accept checks what the program did since the last sync, and returns up to which
// slot it gave them back, from r.head on. A broken rule repairs the ring, as netmap
// does (netmap_ring_reinit), and gives nothing back.
func (r *ring) accept() (head uint32, err error) {
	n := r.n
	slots := uint32(len(r.slots))
	head, cur := n.Head, n.Cur
	if n.NumSlots != slots {
		return r.head, r.repair("num_slots", uint64(n.NumSlots), fmt.Sprint(slots))
	}
	// An overwritten tail is put right; nothing depends on it.
	if n.Tail != r.tail {
		n.Tail = r.tail
	}
	owned := r.distance(r.head, r.tail)
	if head >= slots || r.distance(r.head, head) > owned {
		return r.head, r.repair("head", uint64(head), fmt.Sprintf("from %d to %d", r.head, r.tail))
	}
	if cur >= slots || r.distance(r.head, cur) > owned || r.distance(r.head, cur) < r.distance(r.head, head) {
		return r.head, r.repair("cur", uint64(cur), fmt.Sprintf("from %d to %d", head, r.tail))
	}
	for i := r.head; i != head; i = r.next(i) {
		s := &r.slots[i]
		s.Flags &^= NS_BUF_CHANGED
		if s.BufIdx != r.bufs[i] {
			if err := r.exchanged(i, s); err != nil {
				return r.head, err
			}
		}
		if r.dir == dirTX && uint32(s.Len) > n.NrBufSize {
			return r.head, r.repair(fmt.Sprintf("slot %d len", i), uint64(s.Len), fmt.Sprintf("at most %d", n.NrBufSize))
		}
	}
	return head, nil
}

// exchanged takes in another buffer.
func (r *ring) exchanged(i uint32, s *Slot) error {
	buf := s.BufIdx
	if limit := r.mem.forbids(buf, r.dir); limit != "" {
		return r.repair(fmt.Sprintf("slot %d buf_idx", i), uint64(buf), limit)
	}
	r.mem.exchange(r.owner, r.bufs[i], buf)
	r.bufs[i] = buf
	return nil
}

// repair puts the ring in order again.
func (r *ring) repair(field string, value uint64, limit string) error {
	n := r.n
	n.NumSlots, n.NrBufSize = uint32(len(r.slots)), uint32(r.mem.BufSize())
	n.BufOfs = int64(r.mem.buffers + headroom - r.at)
	n.Head, n.Cur, n.Tail = r.head, r.head, r.tail
	for i := r.head; i != r.tail; i = r.next(i) {
		s := &r.slots[i]
		if s.BufIdx != r.bufs[i] && r.mem.forbids(s.BufIdx, r.dir) != "" {
			s.BufIdx, s.Len = r.bufs[i], 0
		}
		if int(s.Len) > r.mem.BufSize() {
			s.Len = 0
		}
	}
	return &RingError{Ring: r.name, Field: field, Value: value, Limit: limit}
}

// settle takes in the buffers that the program has exchanged, wherever its head is.
func (r *ring) settle() {
	for i := r.head; i != r.tail; i = r.next(i) {
		if s := &r.slots[i]; s.BufIdx != r.bufs[i] && r.mem.forbids(s.BufIdx, r.dir) == "" {
			_ = r.exchanged(i, s)
		}
	}
}

// fill gives the program a buffer in the next slot. There must be room.
func (r *ring) fill(buf uint32, length int, flags uint16) {
	s := &r.slots[r.tail]
	r.bufs[r.tail] = buf
	*s = Slot{BufIdx: buf, Len: uint16(length), Flags: flags}
	r.tail = r.next(r.tail)
}

// publish shows the program the slots that it has, and the time if it asked.
func (r *ring) publish() {
	if r.n.Tail != r.tail {
		r.n.Tail = r.tail
	}
	if r.n.Flags&NR_TIMESTAMP != 0 {
		now := time.Now().UnixMicro()
		r.n.TsSec, r.n.TsUsec = now/1e6, now%1e6
	}
}
