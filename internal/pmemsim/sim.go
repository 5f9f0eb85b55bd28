// Package pmemsim simulates memory behind a cache that a crash may catch at
// any moment, for tests of what is built on pmem. A Memory is a pmem.Domain:
//
//	mem := make([]byte, 256<<10)
//	sim := pmemsim.New(mem, rng)
//	pool, err := pmem.FormatMemory(mem, sim, pmem.Options{})
//	sim.CrashAfter(100)
//	crashed, err := pmemsim.Run(func() error { return work(pool) })
//	mem = sim.Crash() // what is found after the crash
//	sim = pmemsim.New(mem, rng)
//	pool, err = pmem.OpenMemory(mem, sim, pmem.Options{})
package pmemsim

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
)

const line = 64 // bytes of a cache line

// Memory holds what the CPU sees and what certainly survives. A flushed line
// is pending until the next fence. At every call some dirty 8-byte words become
// durable on their own, as evictions do, and at the crash any subset of the
// others may: a stricter memory than real ones, which keep the order of stores
// within a line. One goroutine at a time may use it.
type Memory struct {
	// Region names the part of the pool that an offset lies in, for Drop.
	Region func(off uint64) string
	// Drop, if not nil, is asked about every call; one for which it returns
	// true has no effect: a bug put into the code under test.
	Drop func(Call) bool
	// NoOrder makes Order do nothing, as for a file that is synced once.
	NoOrder bool
	// FailAfter, if above 0, is the number of calls after which Fence and Order
	// fail with Err, for good.
	FailAfter int
	Err       error

	mem     []byte
	durable []byte
	pending map[uint64][line]byte
	rng     *rand.Rand
	calls   int
	crashAt int
	last    string // region flushed last
}

// crash is what the simulated crash panics with.
type crash struct{}

// New makes a Memory over mem, all of which is durable.
func New(mem []byte, rng *rand.Rand) *Memory {
	return &Memory{mem: mem, durable: bytes.Clone(mem), pending: map[uint64][line]byte{}, rng: rng}
}

// Calls returns the number of calls so far.
func (m *Memory) Calls() int { return m.calls }

// CrashAfter makes the n-th call from now panic, before it has an effect; Run
// catches that. 0 means never.
func (m *Memory) CrashAfter(n int) {
	m.crashAt = 0
	if n > 0 {
		m.crashAt = m.calls + n
	}
}

// Lives runs life n times, each over what the one before left behind in its
// memory: a crash ends it at one of its first calls to the domain. setup, if not
// nil, is called with every new Memory. The result is what the last crash left,
// or the first error of a life that was not cut off.
func Lives(n, calls int, mem []byte, rng *rand.Rand, setup func(*Memory), life func(mem []byte, sim *Memory) error) ([]byte, error) {
	for i := range n {
		sim := New(mem, rng)
		if setup != nil {
			setup(sim)
		}
		sim.CrashAfter(1 + rng.IntN(calls))
		if _, err := Run(func() error { return life(mem, sim) }); err != nil {
			return nil, fmt.Errorf("life %d: %w", i, err)
		}
		mem = sim.Crash()
	}
	return mem, nil
}

// Run calls f and reports whether the simulated crash ended it. Other panics
// go through.
func Run(f func() error) (crashed bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(crash); !ok {
				panic(r)
			}
			crashed, err = true, nil
		}
	}()
	return false, f()
}

// Crash returns what is found after a crash now. The Memory is of no use afterwards.
func (m *Memory) Crash() []byte {
	for _, at := range slices.Sorted(maps.Keys(m.pending)) {
		if b := m.pending[at]; m.rng.IntN(2) == 0 { // a flush under way may have finished
			copy(m.durable[at:], b[:])
		}
	}
	m.evict([]float64{0, 0.5, 1}[m.rng.IntN(3)])
	return m.durable
}

// step is called before every call takes effect. It reports whether the call
// is to be left out.
func (m *Memory) step(op string) (dropped bool) {
	if m.rng.IntN(4) == 0 {
		m.evict(0.3)
	}
	m.calls++
	if m.calls == m.crashAt {
		panic(crash{})
	}
	if m.Drop == nil {
		return false
	}
	c := Call{Op: op, Region: m.last, stack: stack(false)}
	if op == "order" { // its place says it all
		c.Region = ""
	}
	return m.Drop(c)
}

// evict lets a share of the dirty words become durable.
func (m *Memory) evict(share float64) {
	const page = 4096 // compared at once: most of the memory is clean
	for p := 0; p < len(m.mem); p += page {
		end := min(p+page, len(m.mem))
		if bytes.Equal(m.mem[p:end], m.durable[p:end]) {
			continue
		}
		for w := p; w < end; w += 8 {
			if le64(m.mem[w:]) == le64(m.durable[w:]) || m.rng.Float64() >= share {
				continue
			}
			copy(m.durable[w:w+8], m.mem[w:])
			at := uint64(w) &^ (line - 1)
			if b, ok := m.pending[at]; ok {
				copy(b[uint64(w)-at:], m.mem[w:w+8])
				m.pending[at] = b
			}
		}
	}
}

func le64(b []byte) (v [8]byte) { return [8]byte(b) }

// Flush implements pmem.Domain.
func (m *Memory) Flush(off, n uint64) {
	if n == 0 {
		return
	}
	if m.Region != nil {
		m.last = m.Region(off)
	}
	if m.step("flush") {
		return
	}
	for at := off &^ (line - 1); at < off+n; at += line {
		m.pending[at] = [line]byte(m.mem[at:])
	}
}

// CopyNT stores src at off and flushes it.
func (m *Memory) CopyNT(off uint64, src []byte) {
	copy(m.mem[off:], src)
	m.Flush(off, uint64(len(src)))
}

// Order implements pmem.Domain.
func (m *Memory) Order() (bool, error) {
	if m.NoOrder {
		return false, m.failure()
	}
	return true, m.fence("order")
}

// Fence implements pmem.Domain.
func (m *Memory) Fence() error { return m.fence("fence") }

func (m *Memory) fence(op string) error {
	if m.step(op) {
		return nil
	}
	if err := m.failure(); err != nil {
		return err
	}
	for at, b := range m.pending {
		copy(m.durable[at:], b[:])
	}
	clear(m.pending)
	return nil
}

func (m *Memory) failure() error {
	if m.FailAfter > 0 && m.calls > m.FailAfter {
		return m.Err
	}
	return nil
}
