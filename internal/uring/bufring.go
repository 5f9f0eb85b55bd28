package uring

import (
	"fmt"
	"math/bits"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BufRing is a provided-buffer ring: buffers that the kernel picks from when
// data arrives. It belongs to the [Ring] that made it, and to its thread.
type BufRing struct {
	ring  *Ring
	group uint16
	mask  uint16
	tail  uint16 // next entry to fill; published by Advance
	mem   []byte
	bufs  []bufEntry
}

// RegisterBufRing makes buffer group number group with room for entries
// buffers, a power of two up to 32768. It is empty at first.
func (r *Ring) RegisterBufRing(group uint16, entries uint32) (*BufRing, error) {
	if r.fd < 0 {
		return nil, ErrClosed
	}
	if entries == 0 || entries > 32768 || bits.OnesCount32(entries) != 1 {
		return nil, fmt.Errorf("register buffer ring %d: %d entries is not a power of two up to 32768", group, entries)
	}
	mem, err := unix.Mmap(-1, 0, int(entries)*int(unsafe.Sizeof(bufEntry{})),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map buffer ring %d: %w", group, err)
	}
	reg := bufReg{ringAddr: uint64(uintptr(unsafe.Pointer(&mem[0]))), ringEntries: entries, bgid: group}
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), registerPBufRing,
		uintptr(unsafe.Pointer(&reg)), 1, 0, 0); errno != 0 {
		_ = unix.Munmap(mem)
		if errno == unix.EINVAL {
			return nil, fmt.Errorf("register buffer ring %d: %w; provided-buffer rings need Linux 5.19", group, errno)
		}
		return nil, fmt.Errorf("register buffer ring %d: %w", group, errno)
	}
	b := &BufRing{ring: r, group: group, mask: uint16(entries - 1), mem: mem,
		bufs: unsafe.Slice((*bufEntry)(unsafe.Pointer(&mem[0])), entries)}
	r.bufRings = append(r.bufRings, b)
	return b, nil
}

// Add fills the next entry with n bytes at p under the number bid, which
// completions report. The kernel sees it after Advance. The caller sees to it
// that no more than the ring's entries are with the kernel, and that the memory
// stays put until the buffer came back.
func (b *BufRing) Add(p unsafe.Pointer, n uint32, bid uint16) {
	e := &b.bufs[b.tail&b.mask]
	// Not a whole-struct store: in entry 0 the last field is the ring's tail.
	e.addr, e.len, e.bid = uint64(uintptr(p)), n, bid
	b.tail++
}

// Advance hands the entries added so far to the kernel.
func (b *BufRing) Advance() {
	// The 16-bit tail needs a release store and Go has none of that width. It
	// shares a 32-bit word with entry 0's buffer number, which only we write.
	// (Little-endian, as all platforms of this module are.)
	word := (*uint32)(unsafe.Pointer(&b.bufs[0].bid))
	atomic.StoreUint32(word, uint32(b.bufs[0].bid)|uint32(b.tail)<<16)
}

// Group is the buffer group's number.
func (b *BufRing) Group() uint16 { return b.group }

// Entries is the ring's capacity.
func (b *BufRing) Entries() int { return len(b.bufs) }

func (b *BufRing) release() error {
	if b.mem == nil {
		return nil
	}
	reg := bufReg{bgid: b.group}
	_, _, _ = unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(b.ring.fd), unregisterPBufRing, uintptr(unsafe.Pointer(&reg)), 1, 0, 0)
	err := unix.Munmap(b.mem)
	b.mem, b.bufs = nil, nil
	return os.NewSyscallError("munmap buffer ring", err)
}
