package xsk

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// packetHeadroom is XDP_PACKET_HEADROOM of linux/bpf.h: what the kernel keeps free, in front of
// UmemConfig.Headroom's place, at the start of each frame it receives into.
const packetHeadroom = 256

// UmemConfig says how the memory is cut up. All sizes are bytes.
type UmemConfig struct {
	// FrameSize is the size of one frame: a power of two between 2048 and
	// the page size. The kernel calls it chunk_size.
	FrameSize int

	// Headroom is kept free in front of every received frame, in addition to the 256 bytes
	// (XDP_PACKET_HEADROOM) that the kernel always leaves.
	Headroom int

	// TxMetadataLen reserves room for a TxMetadata immediately before the
	// address of every TX descriptor; 0 means none. It must be a multiple of 8 below 256 and at
	// least TxMetadataSize. Once it is set, *every* TX
	// descriptor needs that much room between the start of its frame and
	// Desc.Addr, also those without DescTxMetadata: the kernel counts others as invalid.
	TxMetadataLen int
}

// Umem is memory that AF_XDP sockets receive into and send from. The kernel
// learns of it when the first socket is opened, and pins its pages until the last socket is closed.
type Umem struct {
	mem   []byte
	cfg   UmemConfig
	shift uint

	mu      sync.Mutex
	closed  bool
	sockets []*Socket
}

// NewUmem describes mem as a UMEM. mem must start on a page boundary and its
// length must be a multiple of cfg.FrameSize. The memory stays the caller's: it must stay mapped
// until every socket of the Umem is closed, and the file behind it must not be truncated.
//
// Whether the kernel accepts this kind of memory shows at the first Open (ErrMemory).
//
// Several Umem values may describe the same memory; each is pinned, and accounted to
// RLIMIT_MEMLOCK, separately. Open does the same by itself where it has to.
func NewUmem(mem []byte, cfg UmemConfig) (*Umem, error) {
	page := os.Getpagesize()
	switch {
	case len(mem) == 0:
		return nil, errors.New("new umem: no memory")
	case uintptr(unsafe.Pointer(unsafe.SliceData(mem)))%uintptr(page) != 0:
		return nil, fmt.Errorf("new umem: memory does not start on a page boundary (%d bytes)", page)
	case cfg.FrameSize < 2048 || cfg.FrameSize > page || !powerOfTwo(cfg.FrameSize):
		return nil, fmt.Errorf("new umem: frame size %d is not a power of two between 2048 and the page size %d", cfg.FrameSize, page)
	case len(mem)%cfg.FrameSize != 0:
		return nil, fmt.Errorf("new umem: length %d is not a multiple of the frame size %d", len(mem), cfg.FrameSize)
	case cfg.Headroom < 0 || cfg.Headroom >= cfg.FrameSize-packetHeadroom:
		return nil, fmt.Errorf("new umem: headroom %d leaves no room in a frame of %d bytes, of which the kernel takes %d", cfg.Headroom, cfg.FrameSize, packetHeadroom)
	case cfg.TxMetadataLen != 0 && (cfg.TxMetadataLen < TxMetadataSize || cfg.TxMetadataLen >= 256 || cfg.TxMetadataLen%8 != 0):
		return nil, fmt.Errorf("new umem: TX metadata length %d is not a multiple of 8 in %d..248", cfg.TxMetadataLen, TxMetadataSize)
	}
	return &Umem{mem: mem, cfg: cfg, shift: uint(bits.TrailingZeros(uint(cfg.FrameSize)))}, nil
}

// Mem returns the memory that was given to NewUmem.
func (u *Umem) Mem() []byte { return u.mem }

// FrameSize returns the size of one frame in bytes.
func (u *Umem) FrameSize() int { return u.cfg.FrameSize }

// Frames returns the number of frames.
func (u *Umem) Frames() int { return len(u.mem) >> u.shift }

// Bytes returns the bytes that d refers to, without copying. It panics when d lies
// outside of the memory; descriptors from Receive never do.
func (u *Umem) Bytes(d Desc) []byte {
	return u.mem[d.Addr : d.Addr+uint64(d.Len) : d.Addr+uint64(d.Len)]
}

// Close marks the Umem as finished: Open fails from now on. It refuses while sockets
// are open. The memory is not unmapped, it belongs to the caller. Idempotent.
func (u *Umem) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if n := len(u.sockets); n > 0 {
		return fmt.Errorf("close umem: %d of its sockets are still open", n)
	}
	u.closed = true
	return nil
}

// register makes the memory the UMEM of the socket fd.
func (u *Umem) register(fd int) error {
	reg := unix.XDPUmemReg{
		Addr:            uint64(uintptr(unsafe.Pointer(unsafe.SliceData(u.mem)))),
		Len:             uint64(len(u.mem)),
		Size:            uint32(u.cfg.FrameSize),
		Headroom:        uint32(u.cfg.Headroom),
		Tx_metadata_len: uint32(u.cfg.TxMetadataLen),
	}
	if u.cfg.TxMetadataLen > 0 {
		reg.Flags |= unix.XDP_UMEM_TX_METADATA_LEN
	}
	err := setsockopt(fd, unix.SOL_XDP, unix.XDP_UMEM_REG, unsafe.Pointer(&reg), unsafe.Sizeof(reg))
	if err == nil {
		return nil
	}
	return u.registerError(err)
}

// forget removes a closed socket.
func (u *Umem) forget(s *Socket) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, o := range u.sockets {
		if o == s {
			u.sockets = append(u.sockets[:i], u.sockets[i+1:]...)
			return
		}
	}
}

func powerOfTwo(n int) bool { return n > 0 && n&(n-1) == 0 }
