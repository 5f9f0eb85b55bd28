package pasteapi

import (
	"fmt"
	"os"
	"unsafe"

	"github.com/pastenet/paste/pasteapi/internal/frames"
	"golang.org/x/sys/unix"
)

// ringPair is the memory of both rings of a pair, outside of Go's heap, as
// netmap has it.
type ringPair struct {
	mapping []byte
	lent    bool // it is the application's
	rx, tx  ringView
}

// RingMemorySize is the size in bytes of Options.RingMemory for a port of so many
// ring pairs with so many slots in each ring.
func RingMemorySize(rings, slots int) int { return rings * 2 * ringBytes(slots) }

// ringMemory is where the rings of pair id lie: the application's memory, which is
// cleared, or nil if it has lent none.
func (o *Options) ringMemory(id int) []byte {
	if o.RingMemory == nil {
		return nil
	}
	size := RingMemorySize(1, o.Slots)
	b := o.RingMemory[id*size:][:size:size]
	clear(b)
	return b
}

// make lays out both rings, in lent or else in memory of its own, and gives every
// slot a buffer.
func (p *ringPair) make(f *frames.Frames, lent []byte, slots, id int) (err error) {
	size := ringBytes(slots)
	b := lent
	if b == nil {
		if b, err = unix.Mmap(-1, 0, 2*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
			return fmt.Errorf("map rings: %w", os.NewSyscallError("mmap", err))
		}
	}
	p.mapping, p.lent = b, lent != nil
	p.rx = newView(f, unsafe.Pointer(&b[0]), slots, id, dirRX)
	p.tx = newView(f, unsafe.Pointer(&b[size]), slots, id, dirTX)
	for _, v := range []*ringView{&p.rx, &p.tx} {
		if err := f.Fill(v.bufs); err != nil {
			return fmt.Errorf("give buffers to %d slots: %w (%d frames in all; make the pool larger or the rings smaller)",
				2*slots, err, v.end)
		}
		for i, f := range v.bufs {
			v.ring.slot(uint32(i)).BufIdx = f
		}
	}
	p.tx.tail = uint32(slots - 1)
	p.tx.ring.Tail = p.tx.tail
	return nil
}

func newView(f *frames.Frames, at unsafe.Pointer, slots, id, dir int) ringView {
	n := (*NetmapRing)(at)
	n.BufOfs = int64(uintptr(unsafe.Pointer(&f.Bytes(0)[0]))) - int64(uintptr(at))
	n.NumSlots = uint32(slots)
	n.NrBufSize = uint32(f.Size())
	n.RingID = uint16(id)
	n.Dir = uint16(dir)
	n.BufAlign = uint64(f.Size())
	first, end := f.Valid()
	return ringView{
		name: [...]string{dirRX: "rx", dirTX: "tx"}[dir],
		ring: n, frames: f, slots: uint32(slots), first: first, end: end,
		bufs: make([]uint32, slots), counts: make([]uint32, slots),
	}
}

// find says which slot of which ring s is.
func (p *ringPair) find(s *Slot) (uint32, *ringView) {
	at := uintptr(unsafe.Pointer(s))
	for _, v := range []*ringView{&p.rx, &p.tx} {
		base := uintptr(unsafe.Pointer(v.ring)) + ringHeaderSize
		if at >= base && at < base+uintptr(v.slots)*unsafe.Sizeof(Slot{}) {
			return uint32((at - base) / unsafe.Sizeof(Slot{})), v
		}
	}
	return 0, nil
}

// settle takes in the buffers that were exchanged since the last sync. Of a
// broken ring the ones before that are.
func (p *ringPair) settle() {
	if p.mapping != nil {
		_, _ = p.rx.accept()
		_, _ = p.tx.accept()
	}
}

// close unmaps the rings.
func (p *ringPair) close() (err error) {
	if p.mapping != nil && !p.lent {
		err = unix.Munmap(p.mapping)
	}
	*p = ringPair{}
	return os.NewSyscallError("munmap", err)
}
