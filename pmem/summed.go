package pmem

import (
	"fmt"
	"hash/crc32"
	"math"
	"runtime/debug"
)

// CopyIn adds as much of payload to a fragment as its frame has room for, as
// AppendCopy does: past the caches, with the checksum taken in the same pass. It is
// for a payload that comes in pieces, each of which would have to be kept in a
// cache, or be fetched again, until the last one is there. sum is the checksum of
// the fragment so far: of an empty one 0, or, where it continues (Continues) the fragment
// before it in its record, that one's. The result is the new one, for AppendSummed,
// and how many bytes were added. The frame is the caller's alone, and is written to by
// CopyIn only.
func (p *Pool) CopyIn(f *Fragment, sum uint32, payload []byte) (newSum uint32, n int, err error) {
	end := int(f.Off) + int(f.Len)
	if f.Frame < p.g.first || f.Frame >= p.g.frames || end > p.FrameSize() {
		return 0, 0, fmt.Errorf("copy to byte %d of frame %d: %w: data frames are %d to %d, of %d bytes",
			end, f.Frame, ErrFragment, p.g.first, p.g.frames-1, p.FrameSize())
	}
	n = min(len(payload), p.FrameSize()-end, math.MaxUint16-int(f.Len))
	err = p.Guard(func() error {
		newSum = p.copyOn(p.Offset(f.Frame, end), payload[:n], sum)
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	f.Len += uint16(n)
	return newSum, n, nil
}

// copyOn is copySum to any byte of a line. The rest of the line that was begun is
// stored through the caches.
func (p *Pool) copyOn(off uint64, src []byte, sum uint32) uint32 {
	if rest := min(int(-off%CacheLine), len(src)); rest > 0 {
		copy(p.mem[off:], src[:rest])
		p.Flush(off, uint64(rest))
		sum = crc32.Update(sum, castagnoli, src[:rest])
		off, src = off+uint64(rest), src[rest:]
	}
	if len(src) == 0 {
		return sum
	}
	return p.copySum(off, src, sum)
}

// AppendSummed is Append for payloads whose checksums the caller knows, such as
// CopyIn returned for those that it has put into their frames: of a fragment that
// continues the one before it (Pool.Continues) the checksum goes on from that one's.
// What CopyIn has put there needs no flush. What is said of a payload is believed: a wrong checksum makes
// the record damaged.
func (l *Log) AppendSummed(frags []Fragment, sums []uint32, flush bool) (seq uint64, err error) {
	if len(frags) != len(sums) {
		return 0, fmt.Errorf("append to log: %d fragments with %d checksums", len(frags), len(sums))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	done := false
	defer l.changed(debug.SetPanicOnFault(true), &done, &err)
	seq, err = l.appendSummed(frags, sums, flush)
	done = true
	if err != nil {
		return 0, fmt.Errorf("append to log: %w", err)
	}
	return seq, nil
}

func (l *Log) appendSummed(frags []Fragment, sums []uint32, flush bool) (seq uint64, err error) {
	runs := l.p.countRuns(frags)
	if err := l.room(nil, runs); err != nil {
		return 0, err
	}
	n, err := l.p.refAll(frags)
	if err != nil {
		return 0, err
	}
	todo, now := uint8(payloadDone), flush && n > placeLater
	if flush && !now {
		todo = payloadWrite
	}
	s := l.begun(nil, runs)
	for len(frags) > 0 {
		r, k := l.p.firstRun(frags)
		if now {
			l.p.Flush(l.p.Offset(r.frame, int(r.off)), uint64(r.len))
		}
		sum := sums[k-1]
		if r.len == 0 {
			sum = 0 // whatever it was to continue
		}
		s.run(r, sum, todo)
		frags, sums = frags[k:], sums[k:]
	}
	if !flush || now {
		l.p.handOver()
	}
	return s.end(), nil
}
