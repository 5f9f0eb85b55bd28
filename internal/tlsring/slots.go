package tlsring

import (
	"fmt"
	"os"
	"unsafe"

	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
	"golang.org/x/sys/unix"
)

const (
	// slots is how many a ring of plaintext has. What is in use is small enough for
	// the CPU's cache.
	slots = 256
	// headerSize and slotSize are those of netmap's layout.
	headerSize = 256
	slotSize   = 16
	// doff is where plaintext starts in its buffer: a cache line boundary, as flushing
	// works by the line.
	doff = 64
)

// newSlots makes a ring of slots over buffers of the pool, of which it has a reference
// each.
func newSlots(pool *pmem.Pool) (*pasteapi.NetmapRing, error) {
	mem, err := unix.Mmap(-1, 0, headerSize+slotSize*slots, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("make a ring of plaintext: %w", os.NewSyscallError("mmap", err))
	}
	n := (*pasteapi.NetmapRing)(unsafe.Pointer(&mem[0]))
	n.BufOfs = int64(uintptr(unsafe.Pointer(&pool.Mem()[0]))) - int64(uintptr(unsafe.Pointer(&mem[0])))
	n.NumSlots = slots
	n.NrBufSize = uint32(pool.FrameSize())
	var frames [slots]uint32
	if got := pool.Alloc(frames[:]); got < slots {
		pool.UnrefAll(frames[:got])
		_ = unix.Munmap(mem) // it was made above
		return nil, fmt.Errorf("make a ring of plaintext: %w", pasteapi.ErrNoBuffers)
	}
	for i, f := range frames {
		n.Slot(uint32(i)).BufIdx = f
	}
	return n, nil
}

// freeSlots gives everything back.
func freeSlots(pool *pmem.Pool, n *pasteapi.NetmapRing) error {
	var frames [slots]uint32
	for i := range frames {
		frames[i] = n.Slot(uint32(i)).BufIdx
	}
	pool.UnrefAll(frames[:])
	return os.NewSyscallError("munmap", unix.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(n)), headerSize+slotSize*slots)))
}
