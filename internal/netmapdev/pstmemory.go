package netmapdev

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/pastenet/paste/pmem"
	"golang.org/x/sys/unix"
)

// page is the unit in which a memory's arena is given out.
const page = 4096

// Sizes of a memory of ports of connections, bytes. Neither is touched before it is
// used.
const (
	defaultPool = 128 << 20
	arenaSize   = 32 << 20
)

// newPSTMemory makes the memory that ports of connections share.
func (d *Device) newPSTMemory() (*memory, error) {
	if d.opts.PoolFile != "" {
		return fileMemory(d.opts)
	}
	return privateMemory(d.opts)
}

// privateMemory is gone with the process.
func privateMemory(o Options) (*memory, error) {
	size := o.PoolSize
	if size == 0 {
		size = defaultPool
	}
	size = (size + page - 1) &^ (page - 1)
	region, err := unix.Mmap(-1, 0, int(size)+arenaSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", int(size)+arenaSize, os.NewSyscallError("mmap", err))
	}
	unmap := func() error { return os.NewSyscallError("munmap", unix.Munmap(region)) }
	pool, err := pmem.FormatMemory(region[:size], nil, pmem.Options{FrameSize: o.FrameSize, LogEntries: 64, NoFlush: true})
	if err != nil {
		return nil, errors.Join(err, unmap())
	}
	return ofPool(pool, region[size:], unmap), nil
}

// fileMemory opens the pool in a file, or makes one. Its arena lies somewhere else:
// what the program gets are differences of addresses.
func fileMemory(o Options) (*memory, error) {
	pool, err := pmem.OpenOrCreate(o.PoolFile, pmem.Options{Size: o.PoolSize, FrameSize: o.FrameSize})
	if err != nil {
		return nil, err
	}
	rings, err := unix.Mmap(-1, 0, arenaSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map rings: %w", os.NewSyscallError("mmap", err)), pool.Close())
	}
	return ofPool(pool, rings, func() error { return os.NewSyscallError("munmap", unix.Munmap(rings)) }), nil
}

// lentPool makes a memory of the program's mapping, which gets the format of a pool;
// or opens the pool that is there. The arena is its end. What is neither a pool
// nor blank is refused, for it may be dear to somebody.
func lentPool(region []byte, e *extmem) (*memory, error) {
	rings, err := ringRoom(e, uint64(len(region)))
	if err != nil {
		return nil, err
	}
	buffers := region[:uint64(len(region))-rings]
	pool, err := pmem.OpenMemory(buffers, nil, pmem.Options{})
	if errors.Is(err, pmem.ErrNotPool) {
		for _, b := range region[:page] {
			if b != 0 {
				return nil, fmt.Errorf("the memory holds neither a pool nor zeros: %w", unix.EINVAL)
			}
		}
		pool, err = pmem.FormatMemory(buffers, nil, pmem.Options{FrameSize: int(e.info.bufObjSize), LogEntries: 64})
	}
	if err != nil {
		return nil, err
	}
	return ofPool(pool, region[len(buffers):], func() error { return nil }), nil
}

func ofPool(pool *pmem.Pool, rings []byte, unmap func() error) *memory {
	return span(&memory{pool: pool, arena: arena{mem: rings}, parts: [][]byte{pool.Mem(), rings},
		free: func() error { return give(pool.Close, unmap) }})
}

// pools describes the memory as netmap describes its three allocators.
func (m *memory) pools(to *poolsInfo) {
	*to = poolsInfo{memSize: m.size, memID: m.id}
	arena := m.offset(unsafe.Pointer(&m.arena.mem[0]))
	pages := uint32(len(m.arena.mem) / page)
	to.ifOffset, to.ifTotal, to.ifSize = arena, pages, page
	to.ringOffset, to.ringTotal, to.ringSize = arena, pages, page
	to.bufOffset = m.offset(unsafe.Pointer(&m.pool.Mem()[0]))
	to.bufTotal, to.bufObjSize = m.pool.Frames(), uint32(m.pool.FrameSize())
}

// arena gives out whole pages of a piece of memory, which are zero.
type arena struct {
	mem  []byte
	used []bool // by page
}

// take returns n bytes.
func (a *arena) take(n int) ([]byte, error) {
	if a.used == nil {
		a.used = make([]bool, len(a.mem)/page)
	}
	want, run := (n+page-1)/page, 0
	for i, used := range a.used {
		if used {
			run = 0
			continue
		}
		if run++; run == want {
			first := i + 1 - want
			for j := first; j <= i; j++ {
				a.used[j] = true
			}
			b := a.mem[first*page:][:n:n]
			clear(b)
			return b, nil
		}
	}
	return nil, fmt.Errorf("%d bytes for rings: %d are there in all, and not enough of them are free: %w", n, len(a.mem), unix.ENOMEM)
}

// give takes back what take returned.
func (a *arena) give(b []byte) {
	first := int(uintptr(unsafe.Pointer(&b[0]))-uintptr(unsafe.Pointer(&a.mem[0]))) / page
	for i := range (len(b) + page - 1) / page {
		a.used[first+i] = false
	}
}
