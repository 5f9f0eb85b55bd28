package netmap

import (
	"fmt"
	"sync"

	"github.com/pastenet/paste/pmem"
)

// store is where buffers are that nobody has.
type store interface {
	alloc(dst []uint32) int
	free(bufs []uint32)
	// usable says whether the program may put a buffer that it did not get from the
	// Memory into a ring; sole: nobody else may have it.
	usable(buf uint32, sole bool) bool
}

// stack is the store of buffers that are no pool's.
type stack struct {
	mu        sync.Mutex
	next, end uint32 // never given out yet
	back      []uint32
}

func (s *stack) alloc(dst []uint32) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range dst {
		switch {
		case len(s.back) > 0:
			dst[i] = s.back[len(s.back)-1]
			s.back = s.back[:len(s.back)-1]
		case s.next < s.end:
			dst[i] = s.next
			s.next++
		default:
			return i
		}
	}
	return len(dst)
}

func (s *stack) free(bufs []uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.back = append(s.back, bufs...)
}

func (s *stack) usable(uint32, bool) bool { return false }

// poolStore takes frames of a pool. A program may have some by itself.
type poolStore struct{ pool *pmem.Pool }

func (s poolStore) alloc(dst []uint32) int { return s.pool.Alloc(dst) }
func (s poolStore) free(bufs []uint32)     { s.pool.UnrefAll(bufs) }

func (s poolStore) usable(buf uint32, sole bool) bool {
	refs := s.pool.Refs(buf)
	return refs == 1 || refs > 1 && !sole
}

// Alloc gives the program extra buffers, to exchange for those of slots, and returns
// how many of dst it could fill. Of a Memory of a pool they are frames of which the
// program has one reference; pmem.Pool.Alloc does as well.
func (m *Memory) Alloc(dst []uint32) int { return m.take(dst, m.program) }

// Free takes buffers back that the program has, by Alloc or because it has exchanged
// them; of a pool, one reference of each. It does nothing with others.
func (m *Memory) Free(bufs []uint32) { m.give(bufs, m.program) }

// take gets buffers for an owner.
func (m *Memory) take(dst []uint32, owner uint32) int {
	n := m.store.alloc(dst)
	for _, b := range dst[:n] {
		m.owner[b].Store(owner)
	}
	return n
}

// give frees those of bufs that are an owner's.
func (m *Memory) give(bufs []uint32, owner uint32) {
	mine := make([]uint32, 0, len(bufs))
	for _, b := range bufs {
		if int(b) < len(m.owner) && m.owner[b].CompareAndSwap(owner, ownedByNobody) {
			mine = append(mine, b)
		}
	}
	m.store.free(mine)
}

// giveAll frees whatever an owner has.
func (m *Memory) giveAll(owner uint32) {
	var mine []uint32
	for i := range m.owner {
		if m.owner[i].CompareAndSwap(owner, ownedByNobody) {
			mine = append(mine, uint32(i))
		}
	}
	m.store.free(mine)
}

// newOwner is a number for somebody who has buffers.
func (m *Memory) newOwner() uint32 { return m.owners.Add(1) }

// exchange notes that the program has put buffer in into a slot of an owner's, in
// the place of out. Of two ports that exchange buffers each shows its half: who is
// told that he has got one has it, whoever had it.
func (m *Memory) exchange(owner, out, in uint32) {
	m.owner[in].Store(owner)
	m.owner[out].CompareAndSwap(owner, m.program)
}

// forbids says what a buffer would have to be for a slot, or "" if it is.
func (m *Memory) forbids(buf uint32, dir int) string {
	if buf < m.first || buf >= m.end {
		return fmt.Sprintf("from %d to %d", m.first, m.end-1)
	}
	_, pool := m.store.(poolStore)
	switch {
	case !pool && m.owner[buf].Load() != ownedByNobody:
		return ""
	case pool && m.store.usable(buf, dir == dirRX):
		// Nothing else may be in what the NIC receives into; it may be in what is sent.
		return ""
	}
	return "a buffer that the program has"
}

// area is the room for rings: first fit, in steps of 64 bytes.
type area struct {
	mu   sync.Mutex
	size int
	used []span // by place
}

type span struct{ at, len int }

// alloc finds room for n bytes.
func (a *area) alloc(n int) (at int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n = (n + 63) &^ 63
	i := 0
	for ; i < len(a.used); i++ {
		if a.used[i].at-at >= n {
			break
		}
		at = a.used[i].at + a.used[i].len
	}
	if at+n > a.size {
		return 0, fmt.Errorf("no room for a ring of %d bytes in an area of %d (MemoryOptions.RingArea): %w", n, a.size, ErrNoMemory)
	}
	a.used = append(a.used, span{})
	copy(a.used[i+1:], a.used[i:])
	a.used[i] = span{at, n}
	return at, nil
}

func (a *area) free(at int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, s := range a.used {
		if s.at == at {
			a.used = append(a.used[:i], a.used[i+1:]...)
			return
		}
	}
}
