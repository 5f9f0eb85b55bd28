package pmem

import (
	"fmt"
	"runtime/debug"
)

// CopyIn copies payload to the beginning of a frame, as AppendCopy does: past the
// caches, with the checksum taken in the same pass. It is for a payload that comes
// in pieces, each of which would have to be kept in a cache, or be fetched again,
// until the last one is there. The frame is the caller's alone, and is not written
// to any more; AppendSummed takes the checksum. A payload that is larger than a
// frame is ErrSize.
func (p *Pool) CopyIn(frame uint32, payload []byte) (sum uint32, err error) {
	if len(payload) > p.FrameSize() {
		return 0, fmt.Errorf("copy %d bytes into a frame: %w: the limit is %d", len(payload), ErrSize, p.FrameSize())
	}
	if frame < p.g.first || frame >= p.g.frames {
		return 0, fmt.Errorf("copy into frame %d: %w: data frames are %d to %d", frame, ErrFragment, p.g.first, p.g.frames-1)
	}
	err = p.Guard(func() error {
		sum = p.copySum(p.Offset(frame, 0), payload)
		return nil
	})
	return sum, err
}

// AppendSummed is Append for payloads that CopyIn has put into their frames, with
// what it returned for each. Each begins at the beginning of its frame and is whole.
// What is said of a payload is believed: a wrong checksum makes the record
// damaged.
func (l *Log) AppendSummed(frags []Fragment, sums []uint32) (seq uint64, err error) {
	if len(frags) != len(sums) {
		return 0, fmt.Errorf("append to log: %d fragments with %d checksums", len(frags), len(sums))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	done := false
	defer l.changed(debug.SetPanicOnFault(true), &done, &err)
	seq, err = l.appendSummed(frags, sums)
	done = true
	if err != nil {
		return 0, fmt.Errorf("append to log: %w", err)
	}
	return seq, nil
}

func (l *Log) appendSummed(frags []Fragment, sums []uint32) (seq uint64, err error) {
	if err := l.room(nil, len(frags)); err != nil {
		return 0, err
	}
	if _, err := l.p.refAll(frags); err != nil {
		return 0, err
	}
	s := l.begun(nil, len(frags))
	for i, f := range frags {
		s.fragment(f, sums[i], payloadDone)
	}
	l.p.handOver()
	return s.end(), nil
}
