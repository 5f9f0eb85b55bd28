package pmem

import (
	"fmt"
	"hash/crc32"
	"runtime/debug"
)

// CopyIn adds payload to fragments, each to the end of its frame before the next, as
// AppendCopy does: past the caches, with the checksum taken in the same pass. It is
// for a payload that comes in pieces, each of which would have to be kept in a
// cache, or be fetched again, until the last one is there. It returns how many bytes there
// was room for.
//
// frags are the last one that was begun, if any, and empty ones behind it. sums has a
// place for each: AppendSummed is given all of both in the end, and what CopyIn
// was told of earlier fragments it is told again by the first. The frames are the
// caller's alone, and are written to by CopyIn only.
func (p *Pool) CopyIn(frags []Fragment, sums []uint32, payload []byte) (n int, err error) {
	for i, f := range frags {
		if end := int(f.Off) + int(f.Len); f.Frame < p.g.first || f.Frame >= p.g.frames || end > p.FrameSize() || i > 0 && f.Len > 0 {
			return 0, fmt.Errorf("copy to byte %d of frame %d: %w: data frames are %d to %d, of %d bytes, and all but the first fragment are empty",
				end, f.Frame, ErrFragment, p.g.first, p.g.frames-1, p.FrameSize())
		}
	}
	if len(frags) != len(sums) {
		return 0, fmt.Errorf("copy to %d fragments with %d checksums: %w", len(frags), len(sums), ErrFragment)
	}
	err = p.Guard(func() error {
		n = p.copyIn(frags, sums, payload)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// copyIn makes one copy for each run.
func (p *Pool) copyIn(frags []Fragment, sums []uint32, payload []byte) (done int) {
	fs := p.FrameSize()
	for i := 0; i < len(frags) && len(payload) > 0; i++ {
		f := &frags[i]
		off, sum := p.Offset(f.Frame, int(f.Off)+int(f.Len)), sums[i]
		if i > 0 && p.Continues(frags[i-1], *f) {
			sum = sums[i-1]
		}
		n := min(len(payload), fs-int(f.Off)-int(f.Len))
		f.Len += uint16(n)
		for i+1 < len(frags) && n < len(payload) && p.Continues(frags[i], frags[i+1]) {
			i++
			k := min(len(payload)-n, fs)
			frags[i].Len = uint16(k)
			n += k
		}
		sums[i] = p.copyOn(off, payload[:n], sum)
		payload = payload[n:]
		done += n
	}
	return done
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
// CopyIn takes of those that it puts into their frames. That of a fragment which
// continues the one before it (Pool.Continues) goes on from that one's, and only the
// last of such a run counts. What CopyIn has put into its frame needs no flush. What is
// said of a payload is believed: a wrong checksum makes the record damaged.
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
