package pmem

import (
	"fmt"
	"hash/crc32"
)

const (
	headLen   = 64
	headMagic = "PASTELOG"
)

// logHead is where the live part of the log begins; see the package
// documentation for the layout.
type logHead struct {
	gen      uint64
	pos      uint64
	seq      uint64
	epoch    uint32
	minEpoch uint32
	durable  uint64
}

// uuidSeed begins the checksum of everything in the log with the pool's name.
func uuidSeed(u UUID) uint32 { return crc32.Checksum(u[:], castagnoli) }

func (h *logHead) encode(b []byte, seed uint32) {
	clear(b[:headLen])
	copy(b, headMagic)
	le.PutUint64(b[8:], h.gen)
	le.PutUint64(b[16:], h.pos)
	le.PutUint64(b[24:], h.seq)
	le.PutUint32(b[32:], h.epoch)
	le.PutUint32(b[36:], h.minEpoch)
	le.PutUint64(b[40:], h.durable)
	le.PutUint32(b[60:], crc32.Update(seed, castagnoli, b[:60]))
}

func decodeHead(src []byte, seed uint32) (logHead, bool) {
	var b [headLen]byte // a live writer may change src between check and use
	copy(b[:], src)
	if string(b[:8]) != headMagic || crc32.Update(seed, castagnoli, b[:60]) != le.Uint32(b[60:]) {
		return logHead{}, false
	}
	return logHead{
		gen:      le.Uint64(b[8:]),
		pos:      le.Uint64(b[16:]),
		seq:      le.Uint64(b[24:]),
		epoch:    le.Uint32(b[32:]),
		minEpoch: le.Uint32(b[36:]),
		durable:  le.Uint64(b[40:]),
	}, true
}

func headOffset(g *geometry, copy int) uint64 {
	return uint64(headFrame0+copy) * uint64(g.frameSize)
}

// readHead returns the newest valid copy of the head, and which copy a crash
// during a change left behind or time has rotten.
func readHead(mem []byte, g *geometry, seed uint32) (h logHead, bad badCopy, err error) {
	a, okA := decodeHead(mem[headOffset(g, 0):], seed)
	b, okB := decodeHead(mem[headOffset(g, 1):], seed)
	switch {
	case okA && okB && a == b:
		return a, noneBad, nil
	case okA && (!okB || a.gen >= b.gen):
		return a, secondBad, nil
	case okB:
		return b, firstBad, nil
	}
	return logHead{}, noneBad, fmt.Errorf("%w: both copies of the log head are invalid", ErrDamaged)
}

// readHead is the function of that name, for a pool that may have a writer.
func (l *Log) readHead() (h logHead, bad badCopy, err error) {
	h, bad, err = readHead(l.p.mem, &l.p.g, l.seed)
	for range l.p.retries() {
		if err == nil {
			break
		}
		h, bad, err = readHead(l.p.mem, &l.p.g, l.seed)
	}
	return h, bad, err
}

// writeHead makes h durable in both copies, one strictly after the other.
// Both must be good before: a change must never strike the only good one.
func writeHead(mem []byte, dom Domain, g *geometry, seed uint32, h *logHead) error {
	for i := range 2 {
		if err := writeHeadCopy(mem, dom, g, seed, h, i); err != nil {
			return err
		}
	}
	return nil
}

func writeHeadCopy(mem []byte, dom Domain, g *geometry, seed uint32, h *logHead, i int) error {
	off := headOffset(g, i)
	h.encode(mem[off:], seed)
	dom.Flush(off, headLen)
	return dom.Fence()
}

func initLogHead(mem []byte, dom Domain, s *superblock) error {
	return writeHead(mem, dom, &s.geometry, uuidSeed(s.uuid), &logHead{gen: 1, seq: 1, epoch: 1, minEpoch: 1})
}
