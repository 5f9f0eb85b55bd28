package pmem

import "hash/crc32"

// Entry flags. Bits 8 to 15 are the number of header bytes in the entry.
const (
	flagFirst = 1 << iota
	flagLast
	flagEmpty     // a record of neither payload nor header
	flagHeader    // header bytes only, no fragment
	flagUnordered // stored in one go with its payload, which may have been torn
	flagRun       // the payload is in more than one frame
	flagsKnown    = flagFirst | flagLast | flagEmpty | flagHeader | flagUnordered | flagRun
	headerShift   = 8
)

const (
	// MaxHeader is the largest header of a record in bytes.
	MaxHeader = 64

	headerBeside = 20 // header bytes that fit in an entry beside a fragment
	headerAlone  = 32 // header bytes of an entry without one
)

// entry is one decoded log entry; see the package documentation.
type entry struct {
	pos   uint64
	seq   uint64
	back  uint32 // every entry before pos-back was durable when this one was stored
	epoch uint32
	flags uint16
	index uint16
	run
	sum    uint32
	header [headerAlone]byte // the first headerLen() of them
}

func (e *entry) headerLen() int  { return int(e.flags >> headerShift) }
func (e *entry) durable() uint64 { return e.pos - uint64(e.back) }
func (e *entry) isFragment() bool {
	return e.flags&(flagEmpty|flagHeader) == 0
}

// encode fills in everything but the checksum; sealEntry adds that.
func (e *entry) encode(b []byte) {
	_ = b[entryLen-1]
	le.PutUint64(b[0:], e.pos)
	le.PutUint64(b[8:], e.seq)
	le.PutUint32(b[16:], e.back)
	le.PutUint32(b[20:], e.epoch)
	le.PutUint16(b[24:], e.flags)
	le.PutUint16(b[26:], e.index)
	if e.flags&flagHeader != 0 {
		copy(b[28:60], e.header[:])
		return
	}
	le.PutUint32(b[28:], e.frame)
	e.run.encode(b[32:], e.flags)
	le.PutUint32(b[36:], e.sum)
	copy(b[40:60], e.header[:])
}

// The upper bits of a run's length are in those of off that no offset in a frame has.
const (
	offBits = 12
	lenBits = 16
)

// encode writes off and len.
func (r *run) encode(b []byte, flags uint16) {
	off := r.off
	if flags&flagRun != 0 {
		off |= uint16(r.len >> lenBits << offBits)
	}
	le.PutUint16(b, off)
	le.PutUint16(b[2:], uint16(r.len))
}

// decodeRange reads what run.encode wrote.
func decodeRange(b []byte, flags uint16) (off uint16, n uint32) {
	off, n = le.Uint16(b), uint32(le.Uint16(b[2:]))
	if flags&flagRun != 0 {
		n |= uint32(off>>offBits) << lenBits
		off &= 1<<offBits - 1
	}
	return off, n
}

// runOf reads what an encoded entry refers to.
func runOf(b []byte) run {
	off, n := decodeRange(b[32:], le.Uint16(b[24:]))
	return run{le.Uint32(b[28:]), off, n}
}

// sealEntry completes an encoded entry with what is known when it is stored.
func sealEntry(b []byte, seed uint32, durable uint64, unordered bool) {
	le.PutUint32(b[16:], uint32(le.Uint64(b)-durable))
	if unordered {
		b[24] |= flagUnordered
	}
	le.PutUint32(b[60:], crc32.Update(seed, castagnoli, b[:60]))
}

// decodeEntry reads the entry at position pos from its slot. It reports false
// when the slot holds anything else: zeros, another lap, a torn store. buf is
// where the slot is copied to first, as a live writer may change it between
// check and use; it is the caller's because crc32 moves its argument to the heap.
func decodeEntry(buf *[entryLen]byte, slot []byte, seed uint32, pos uint64) (entry, bool) {
	if le.Uint64(slot) != pos {
		return entry{}, false
	}
	b := buf[:]
	copy(b, slot)
	if crc32.Update(seed, castagnoli, b[:60]) != le.Uint32(b[60:]) {
		return entry{}, false
	}
	e := entry{
		pos:   le.Uint64(b[0:]),
		seq:   le.Uint64(b[8:]),
		back:  le.Uint32(b[16:]),
		epoch: le.Uint32(b[20:]),
		flags: le.Uint16(b[24:]),
		index: le.Uint16(b[26:]),
	}
	if e.flags&flagHeader != 0 {
		copy(e.header[:], b[28:60])
	} else {
		e.frame = le.Uint32(b[28:])
		e.off, e.len = decodeRange(b[32:], e.flags)
		e.sum = le.Uint32(b[36:])
		copy(e.header[:], b[40:60])
	}
	return e, e.pos == pos
}

// sane reports whether the entry can be one at all, and whether its payload
// lies within one data frame, or is a run of them.
func (e *entry) sane(g *geometry) bool {
	n := e.headerLen()
	switch {
	case e.flags&0xff&^flagsKnown != 0 || uint64(e.back) > e.pos:
		return false
	case e.flags&flagEmpty != 0:
		return e.frame == 0 && e.len == 0 && e.off == 0 && n == 0 && e.flags|flagUnordered == flagFirst|flagLast|flagEmpty|flagUnordered
	case e.flags&flagHeader != 0:
		return e.flags&flagRun == 0 && n > 0 && n <= headerAlone
	}
	if n > headerBeside || e.frame < g.first || e.frame >= g.frames {
		return false
	}
	if e.flags&flagRun != 0 {
		return e.run.sane(g)
	}
	return uint32(e.off)+e.len <= g.frameSize
}
