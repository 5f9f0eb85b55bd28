package pmem

import "hash/crc32"

// Entry flags.
const (
	flagFirst = 1 << iota
	flagLast
	flagEmpty
	flagsKnown = flagFirst | flagLast | flagEmpty
)

// entry is one decoded log entry; see the package documentation.
type entry struct {
	pos     uint64
	seq     uint64
	durable uint64
	frame   uint32
	off     uint16
	len     uint16
	epoch   uint32
	flags   uint16
	index   uint16
	sum     uint32
}

func (e *entry) encode(b []byte, seed uint32) {
	_ = b[entryLen-1]
	le.PutUint64(b[0:], e.pos)
	le.PutUint64(b[8:], e.seq)
	le.PutUint64(b[16:], e.durable)
	le.PutUint32(b[24:], e.frame)
	le.PutUint16(b[28:], e.off)
	le.PutUint16(b[30:], e.len)
	le.PutUint32(b[32:], e.epoch)
	le.PutUint16(b[36:], e.flags)
	le.PutUint16(b[38:], e.index)
	le.PutUint32(b[40:], e.sum)
	clear(b[44:60])
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
		pos:     le.Uint64(b[0:]),
		seq:     le.Uint64(b[8:]),
		durable: le.Uint64(b[16:]),
		frame:   le.Uint32(b[24:]),
		off:     le.Uint16(b[28:]),
		len:     le.Uint16(b[30:]),
		epoch:   le.Uint32(b[32:]),
		flags:   le.Uint16(b[36:]),
		index:   le.Uint16(b[38:]),
		sum:     le.Uint32(b[40:]),
	}
	return e, e.pos == pos
}

// inside reports whether the entry's fragment lies within one data frame.
func (e *entry) inside(g *geometry) bool {
	if e.flags&flagEmpty != 0 {
		return e.frame == 0 && e.len == 0 && e.off == 0 && e.flags == flagsKnown
	}
	return e.flags&^uint16(flagsKnown) == 0 && e.frame >= g.first && e.frame < g.frames &&
		uint32(e.off)+uint32(e.len) <= g.frameSize
}
