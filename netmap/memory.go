package netmap

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/xsk"
	"golang.org/x/sys/unix"
)

// Sizes of a Memory.
const (
	defaultBuffers  = 32768
	defaultBufSize  = 2048
	defaultRingArea = 16 << 20
	firstBuffer     = 2 // netmap never gives out 0 and 1
	hugePage        = 2 << 20
)

// MemoryOptions describe a Memory. The zero value is usable.
type MemoryOptions struct {
	// Buffers is how many there are; 0 = 32768. Those of a pool are the pool's
	// frames.
	Buffers int
	// BufSize is the size of one, 2048 or 4096 bytes; 0 = 2048. A frame may have
	// 256 bytes less, or take several buffers.
	BufSize int
	// RingArea is the room for rings in bytes; 0 = 16 MiB. A ring of 1024 slots
	// takes 20 KiB. Pages that no ring is in cost nothing.
	RingArea int
}

// Memory is what ports have their rings and buffers in: netmap's memory region,
// which a C program maps as a whole. Ports of one Memory exchange buffers by
// exchanging their indices. Its methods may be called from several goroutines.
//
// The region is the rings, then the buffers, then one page that belongs to the last
// buffer.
type Memory struct {
	id       uint16
	region   []byte
	buffers  int // where they begin in the region: chunk 0 of the UMEM
	shift    uint
	first    uint32 // valid buffer indices
	end      uint32
	segments []Segment
	reserved []byte   // the mapping, if it is ours
	file     *os.File // of rings, and of buffers that are not a pool's
	release  func()   // of a pool

	umem  *xsk.Umem
	store store
	area  area

	// owner says by buffer who has it: nobody, the program, or a port's queue. A
	// pool counts itself what the program has of it.
	owner   []atomic.Uint32
	program uint32 // ownedByProgram; with a pool ownedByNobody
	owners  atomic.Uint32

	mu     sync.Mutex
	users  int
	closed bool
}

// Segment is a part of a Memory's region, which can be mapped from its file. Those
// of a Memory follow one another.
type Segment struct {
	Fd     int // the Memory's
	Offset int64
	Len    int
}

const (
	ownedByNobody  = 0
	ownedByProgram = 1
)

var memoryIDs atomic.Uint32

// NewMemory makes memory without a file system's file (a memfd).
func NewMemory(o MemoryOptions) (*Memory, error) {
	if o.Buffers == 0 {
		o.Buffers = defaultBuffers
	}
	if o.BufSize == 0 {
		o.BufSize = defaultBufSize
	}
	if o.Buffers < 64 || o.Buffers > 1<<24 {
		return nil, fmt.Errorf("new memory: %d buffers: must be from 64 to %d", o.Buffers, 1<<24)
	}
	m, err := newMemory(o, int64(o.Buffers)*int64(o.BufSize), -1)
	if err != nil {
		return nil, fmt.Errorf("new memory: %w", err)
	}
	m.first, m.end = firstBuffer, uint32(o.Buffers)
	m.store = &stack{next: firstBuffer, end: m.end}
	return m, nil
}

// PoolMemory makes memory whose buffers are the frames of a pool: what is received
// can go into the pool's log without moving. The pool is held until Close.
func PoolMemory(p *pmem.Pool, o MemoryOptions) (_ *Memory, err error) {
	if o.Buffers != 0 || o.BufSize != 0 && o.BufSize != p.FrameSize() {
		return nil, errors.New("memory of a pool: number and size of the buffers are the pool's: leave them out")
	}
	release, err := p.Hold("raw ports")
	if err != nil {
		return nil, fmt.Errorf("memory of a pool: %w", err)
	}
	o.BufSize = p.FrameSize()
	m, err := newMemory(o, int64(len(p.Mem())), p.Fd())
	if err != nil {
		release()
		return nil, fmt.Errorf("memory of a pool: %w", err)
	}
	m.release = release
	m.first, m.end = p.FirstFrame(), p.Frames()
	m.store, m.program = poolStore{p}, ownedByNobody
	return m, nil
}

// MemoryOver makes memory of what the caller has mapped: netmap's extmem. It must
// begin on a page, stay mapped until Close, and be memory that AF_XDP takes (see
// xsk.NewUmem). o.Buffers 0 takes what the rings leave.
func MemoryOver(mem []byte, o MemoryOptions) (*Memory, error) {
	if o.BufSize == 0 {
		o.BufSize = defaultBufSize
	}
	page := os.Getpagesize()
	if o.RingArea == 0 {
		o.RingArea = min(defaultRingArea, len(mem)/8/page*page)
	}
	most := (len(mem) - o.RingArea - page) / o.BufSize
	if o.Buffers == 0 {
		o.Buffers = most / (page / o.BufSize) * (page / o.BufSize)
	}
	if o.Buffers < 64 || o.Buffers > most {
		return nil, fmt.Errorf("memory over %d bytes: %d buffers of %d, and %d bytes for rings: there is room for %d buffers, and 64 are needed", len(mem), o.Buffers, o.BufSize, o.RingArea, max(most, 0))
	}
	m := &Memory{id: nextMemory(), region: mem, buffers: o.RingArea}
	if err := m.complete(o, o.Buffers*o.BufSize); err != nil {
		return nil, fmt.Errorf("memory over %d bytes: %w", len(mem), err)
	}
	m.first, m.end = firstBuffer, uint32(o.Buffers)
	m.store = &stack{next: firstBuffer, end: m.end}
	return m, nil
}

func nextMemory() uint16 { return uint16((memoryIDs.Add(1)-1)%(1<<16-1) + 1) }

// newMemory maps rings, buffers of fd (-1: of its own file) and the last page side
// by side.
func newMemory(o MemoryOptions, size int64, fd int) (_ *Memory, err error) {
	if o.RingArea == 0 {
		o.RingArea = defaultRingArea
	}
	page := os.Getpagesize()
	size = (size + int64(page) - 1) &^ int64(page-1)
	o.RingArea = (o.RingArea + page - 1) &^ (page - 1)
	m := &Memory{id: nextMemory(), buffers: o.RingArea}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.unmap())
		}
	}()
	file, err := unix.MemfdCreate("netmap memory", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	m.file = os.NewFile(uintptr(file), "netmap memory")
	m.segments = []Segment{{file, 0, o.RingArea + int(size) + page}}
	if fd >= 0 {
		m.segments = []Segment{{file, 0, o.RingArea}, {fd, 0, int(size)}, {file, int64(o.RingArea), page}}
	}
	own := 0
	for _, s := range m.segments {
		if s.Fd == file {
			own += s.Len
		}
	}
	if err := m.file.Truncate(int64(own)); err != nil {
		return nil, err
	}
	if err := m.mapSegments(o.RingArea); err != nil {
		return nil, err
	}
	return m, m.complete(o, int(size))
}

// mapSegments maps the file's parts; the buffers begin at a huge page, as the file
// of a pool may want it.
func (m *Memory) mapSegments(ringArea int) (err error) {
	total := 0
	for _, s := range m.segments {
		total += s.Len
	}
	m.reserved, err = unix.Mmap(-1, 0, total+2*hugePage, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	base := uintptr(unsafe.Pointer(&m.reserved[0]))
	at := int((base+uintptr(ringArea)+hugePage-1)&^(hugePage-1) - uintptr(ringArea) - base)
	m.region = m.reserved[at : at+total : at+total]
	for _, s := range m.segments {
		_, err := unix.MmapPtr(s.Fd, s.Offset, unsafe.Pointer(&m.reserved[at]), uintptr(s.Len),
			unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED)
		if err != nil {
			return fmt.Errorf("map %d bytes of the buffers' file: %w", s.Len, os.NewSyscallError("mmap", err))
		}
		at += s.Len
	}
	return nil
}

func (m *Memory) complete(o MemoryOptions, size int) (err error) {
	if o.BufSize != 2048 && o.BufSize != 4096 {
		return fmt.Errorf("buffers of %d bytes: there are 2048 and 4096", o.BufSize)
	}
	for 1<<m.shift < o.BufSize {
		m.shift++
	}
	m.umem, err = xsk.NewUmem(m.region[m.buffers:m.buffers+size], xsk.UmemConfig{FrameSize: o.BufSize})
	if err != nil {
		return err
	}
	m.area.size = m.buffers
	m.owner = make([]atomic.Uint32, size>>m.shift)
	m.owners.Store(ownedByProgram)
	m.program = ownedByProgram
	return nil
}

// ID is netmap's memory number: nr_mem_id.
func (m *Memory) ID() uint16 { return m.id }

// Bytes is the whole region. It is valid until Close.
func (m *Memory) Bytes() []byte { return m.region }

// Segments are the parts of the region, to be mapped side by side by another
// process; nil for MemoryOver.
func (m *Memory) Segments() []Segment { return m.segments }

// BufSize is the size of a buffer, bytes.
func (m *Memory) BufSize() int { return 1 << m.shift }

// MaxFrame is the most bytes of a frame that fit one buffer.
func (m *Memory) MaxFrame() int { return 1<<m.shift - headroom }

// Buf is a buffer.
func (m *Memory) Buf(i uint32) []byte {
	if i < m.first || i >= m.end {
		return nil
	}
	at := m.buffers + headroom + int(i)<<m.shift
	return m.region[at : at+1<<m.shift : at+1<<m.shift]
}

// Close unmaps the memory. It fails with ErrBusy while a port has it.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	if m.users > 0 {
		return fmt.Errorf("close memory %d: %w by %d ports; close them first", m.id, ErrBusy, m.users)
	}
	if err := m.umem.Close(); err != nil {
		return fmt.Errorf("close memory %d: %w", m.id, err)
	}
	m.closed = true
	return m.unmap()
}

func (m *Memory) unmap() (err error) {
	if m.reserved != nil {
		// unix.Munmap knows the slice that Mmap gave; what was mapped over it since
		// goes with it.
		err = os.NewSyscallError("munmap", unix.Munmap(m.reserved))
	}
	if m.file != nil {
		err = errors.Join(err, m.file.Close())
	}
	if m.release != nil {
		m.release()
	}
	return err
}

// use counts a port in.
func (m *Memory) use() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fmt.Errorf("memory %d: %w", m.id, ErrClosed)
	}
	m.users++
	return nil
}

func (m *Memory) unuse() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.users--
}
