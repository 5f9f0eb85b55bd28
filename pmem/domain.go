package pmem

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// Domain is how stores to a pool's memory become durable. Offsets are bytes
// from the start of the pool. Every store of this package is followed by Flush
// of its range, so whatever keeps these three promises
// can stand behind a pool: the CPU's cache instructions, a file that is
// written to, or a test's image of what would have survived.
//
// One call covers a range, so the indirection costs nothing against the work
// itself. A Domain must allow calls from several goroutines.
type Domain interface {
	// Flush starts to make every line in [off, off+n) durable.
	Flush(off, n uint64)
	// Order promises that a crash which finds anything flushed after it finds
	// everything flushed before it; ordered is false when the domain cannot
	// promise that at a lower cost than Fence's, and then it does nothing.
	Order() (ordered bool, err error)
	// Fence waits until everything flushed before is durable. After an error
	// nothing flushed since the Fence before may be, and no later one succeeds.
	Fence() error
}

// cpuDomain flushes with the CPU's instructions, into memory that is itself
// the persistent place.
type cpuDomain struct{ mem []byte }

func (c *cpuDomain) Flush(off, n uint64)           { Flush(c.mem[off : off+n]) }
func (c *cpuDomain) CopyNT(off uint64, src []byte) { CopyNT(c.mem[off:], src) }
func (c *cpuDomain) Order() (bool, error)          { fence(); return true, nil }
func (c *cpuDomain) Fence() error                  { fence(); return nil }

// noDomain stores and never flushes: Options.NoFlush.
type noDomain struct{ mem []byte }

func (*noDomain) Flush(off, n uint64)             {}
func (m *noDomain) CopyNT(off uint64, src []byte) { copy(m.mem[off:], src) }
func (*noDomain) Order() (bool, error)            { return true, nil }
func (*noDomain) Fence() error                    { return nil }

// Offset returns where byte off of frame i lies in Mem.
func (p *Pool) Offset(i uint32, off int) uint64 {
	return uint64(i)*uint64(p.g.frameSize) + uint64(off)
}

// Flush starts to make bytes [off, off+n) of the pool durable; they are after
// the next Fence. Any number of flushes share one Fence. It is for the code of
// persistent structures, as are CopyNT, Store64, Fence and Persist: all of them
// go through the pool's Domain, whatever the pool lives in.
func (p *Pool) Flush(off, n uint64) {
	if n > 0 {
		p.dom.Flush(off, n)
	}
}

// CopyNT stores src at byte off of the pool and flushes it, past the caches
// where that spares a flush.
func (p *Pool) CopyNT(off uint64, src []byte) {
	if c, ok := p.dom.(*cpuDomain); ok {
		c.CopyNT(off, src)
		return
	}
	copy(p.mem[off:], src)
	p.Flush(off, uint64(len(src)))
}

// Store64 stores v at byte off, a multiple of 8, in one piece: a crash finds
// either the old or the new value. It does not flush.
func (p *Pool) Store64(off, v uint64) {
	atomic.StoreUint64((*uint64)(p.word(off)), v)
}

// Load64 reads what Store64 stored, in one piece.
func (p *Pool) Load64(off uint64) uint64 {
	return atomic.LoadUint64((*uint64)(p.word(off)))
}

func (p *Pool) word(off uint64) unsafe.Pointer {
	if off%8 != 0 {
		panic(fmt.Sprintf("pmem: word at offset %d is not aligned", off))
	}
	return unsafe.Pointer(unsafe.SliceData(p.mem[off : off+8]))
}

// Fence waits until everything flushed before is durable. An error wraps ErrIO
// and stays: the pool has failed, and every later Fence returns the same.
func (p *Pool) Fence() error { return p.dom.Fence() }

// Persist is Flush followed by Fence.
func (p *Pool) Persist(off, n uint64) error {
	return p.storing(func() error {
		p.Flush(off, n)
		return p.Fence()
	})
}
