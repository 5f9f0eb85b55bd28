package bpf

import (
	"sync/atomic"
	"unsafe"
)

// A record's header in a BPF ring buffer: u32 length with two flag bits, u32
// page offset (include/uapi/linux/bpf.h, BPF_RINGBUF_*).
const (
	ringBusy    = 1 << 31
	ringDiscard = 1 << 30
	ringHeader  = 8
)

// ringReader is the consumer of a BPF ring buffer, without system calls and
// without copies. The data area is mapped twice in a row, so that a record is
// always contiguous.
type ringReader struct {
	consumer *uint64
	producer *uint64
	data     unsafe.Pointer
	mask     uint64
	pos      uint64 // read up to here
	released uint64 // told the kernel up to here
}

func newRingReader(cons, prod []byte, page, size int) ringReader {
	r := ringReader{
		consumer: (*uint64)(unsafe.Pointer(&cons[0])),
		producer: (*uint64)(unsafe.Pointer(&prod[0])),
		data:     unsafe.Pointer(&prod[page]),
		mask:     uint64(size - 1),
	}
	r.pos = atomic.LoadUint64(r.consumer)
	r.released = r.pos
	return r
}

// next returns the next committed record's bytes, valid until release.
func (r *ringReader) next() unsafe.Pointer {
	for r.pos != atomic.LoadUint64(r.producer) {
		hdr := (*uint32)(unsafe.Add(r.data, r.pos&r.mask))
		n := atomic.LoadUint32(hdr)
		if n&ringBusy != 0 {
			return nil
		}
		at := r.pos
		length := uint64(n &^ (ringBusy | ringDiscard))
		r.pos += (length + ringHeader + 7) &^ 7
		if n&ringDiscard == 0 {
			return unsafe.Add(r.data, at&r.mask+ringHeader)
		}
	}
	return nil
}

func (r *ringReader) pending() bool { return r.pos != atomic.LoadUint64(r.producer) }

func (r *ringReader) release() {
	if r.released != r.pos {
		r.released = r.pos
		atomic.StoreUint64(r.consumer, r.pos)
	}
}
