package xsk

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"
)

// ring is one of the four rings that a socket shares with the kernel: a power of two of
// entries, and two free-running 32-bit counters, one advanced by each side.
//
// Ordering, as in the kernel's net/xdp/xsk_queue.h: the side that advances a
// counter does so with a release store after it has touched the entries; the
// other side reads it with an acquire load before it touches them. Go's
// sync/atomic operations are sequentially consistent and so include both.
//
// The counter of our own side is only ever written by us, so it is kept in an ordinary
// field; the other side's is read again only when the remembered value does not suffice.
// That keeps the shared cache lines quiet: one load at most and one store per batch.
//
// A ring that does not exist, or whose socket was closed, has size 0 and refers to
// counters on the Go heap: it is always both full and empty.
type ring struct {
	producer *uint32
	consumer *uint32
	flags    *uint32
	entries  unsafe.Pointer
	size     uint32
	mask     uint32

	prod uint32 // ours in the fill and TX rings, else the last one seen
	cons uint32 // ours in the RX and completion rings, else the last one seen

	mem []byte // the mapping

	// Different goroutines may use different rings of one socket.
	_ cpu.CacheLinePad
}

// reset makes r a ring of size 0.
func (r *ring) reset() {
	idle := new([3]uint32)
	*r = ring{producer: &idle[0], consumer: &idle[1], flags: &idle[2]}
}

// view lays the ring over mem, at the offsets that XDP_MMAP_OFFSETS gave.
func (r *ring) view(mem []byte, off unix.XDPRingOffset, size uint32) {
	*r = ring{
		producer: (*uint32)(unsafe.Pointer(&mem[off.Producer])),
		consumer: (*uint32)(unsafe.Pointer(&mem[off.Consumer])),
		flags:    (*uint32)(unsafe.Pointer(&mem[off.Flags])),
		entries:  unsafe.Pointer(&mem[off.Desc]),
		size:     size,
		mask:     size - 1,
		mem:      mem,
	}
	r.prod = atomic.LoadUint32(r.producer)
	r.cons = atomic.LoadUint32(r.consumer)
}

// create asks the kernel for a ring of size entries (socket option opt) and maps it.
func (r *ring) create(fd, opt int, pgoff int64, off unix.XDPRingOffset, size int, entrySize uintptr) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_XDP, opt, size); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	mem, err := unix.Mmap(fd, pgoff, int(off.Desc)+size*int(entrySize),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	r.view(mem, off, uint32(size))
	return nil
}

// destroy unmaps the ring and leaves one of size 0.
func (r *ring) destroy() error {
	mem := r.mem
	r.reset()
	if mem == nil {
		return nil
	}
	return unix.Munmap(mem)
}

// needsWakeup reports whether the kernel wants a system call to go on with this ring.
func (r *ring) needsWakeup() bool {
	return atomic.LoadUint32(r.flags)&unix.XDP_RING_NEED_WAKEUP != 0
}

// Producer side: fill and TX rings.

// reserve returns how many entries, up to want, may be written at prod.
func (r *ring) reserve(want uint32) uint32 {
	free := r.size - (r.prod - r.cons)
	if free < want {
		r.cons = atomic.LoadUint32(r.consumer)
		free = r.size - (r.prod - r.cons)
	}
	return min(free, want)
}

// submit hands n written entries to the kernel.
func (r *ring) submit(n uint32) {
	r.prod += n
	atomic.StoreUint32(r.producer, r.prod)
}

// unconsumed returns how many submitted entries the other side has not taken yet.
func (r *ring) unconsumed() uint32 {
	r.cons = atomic.LoadUint32(r.consumer)
	return r.prod - r.cons
}

// Consumer side: RX and completion rings.

// available returns how many entries, up to want, may be read at cons.
func (r *ring) available(want uint32) uint32 {
	n := r.prod - r.cons
	if n < want {
		r.prod = atomic.LoadUint32(r.producer)
		n = r.prod - r.cons
	}
	return min(n, want)
}

// release gives n read entries back to the kernel.
func (r *ring) release(n uint32) {
	r.cons += n
	atomic.StoreUint32(r.consumer, r.cons)
}

// addr is the entry at counter value i of a fill or completion ring.
func (r *ring) addr(i uint32) *uint64 {
	return (*uint64)(unsafe.Add(r.entries, uintptr(i&r.mask)*unsafe.Sizeof(uint64(0))))
}

// desc is the entry at counter value i of an RX or TX ring.
func (r *ring) desc(i uint32) *Desc {
	return (*Desc)(unsafe.Add(r.entries, uintptr(i&r.mask)*unsafe.Sizeof(Desc{})))
}

func (r *ring) putAddrs(addrs []uint64) int {
	n := r.reserve(clamp(len(addrs)))
	if n == 0 {
		return 0
	}
	for i, a := range addrs[:n] {
		*r.addr(r.prod + uint32(i)) = a
	}
	r.submit(n)
	return int(n)
}

func (r *ring) putFrames(frames []uint32, shift uint) int {
	n := r.reserve(clamp(len(frames)))
	if n == 0 {
		return 0
	}
	for i, f := range frames[:n] {
		*r.addr(r.prod + uint32(i)) = uint64(f) << shift
	}
	r.submit(n)
	return int(n)
}

func (r *ring) getAddrs(addrs []uint64) int {
	n := r.available(clamp(len(addrs)))
	if n == 0 {
		return 0
	}
	for i := range addrs[:n] {
		addrs[i] = *r.addr(r.cons + uint32(i))
	}
	r.release(n)
	return int(n)
}

func (r *ring) putDescs(descs []Desc) int {
	n := r.reserve(clamp(len(descs)))
	if n == 0 {
		return 0
	}
	for i, d := range descs[:n] {
		*r.desc(r.prod + uint32(i)) = d
	}
	r.submit(n)
	return int(n)
}

func (r *ring) getDescs(descs []Desc) int {
	n := r.available(clamp(len(descs)))
	if n == 0 {
		return 0
	}
	for i := range descs[:n] {
		descs[i] = *r.desc(r.cons + uint32(i))
	}
	r.release(n)
	return int(n)
}

// clamp makes a slice length a ring count; no ring is larger than 1<<31 entries.
func clamp(n int) uint32 { return uint32(min(n, 1<<31)) }
