package pmem

import (
	"fmt"
	"hash/crc32"
	"io"
)

// Record is one committed record. Its payload stays in the pool: it is valid
// until the record is truncated or the pool closed.
type Record struct {
	Seq       uint64
	Epoch     uint32 // counts how often the pool had been opened for writing
	Header    []byte // what was given to AppendHeader; a copy
	Length    int64  // of the payload in bytes
	Fragments []Fragment
	checks    []check // of the fragments
	p         *Pool
}

// Payload returns the bytes of fragment i, in the pool.
func (r Record) Payload(i int) []byte {
	f := r.Fragments[i]
	return r.p.Frame(f.Frame)[f.Off : uint32(f.Off)+uint32(f.Len)]
}

// Sum returns a CRC-32C as it was appended: that of the payload of the of fragments
// with which fragment i has it in common, of which i is number at.
func (r Record) Sum(i int) (sum uint32, at, of int) {
	c := r.checks[i]
	return c.sum, int(c.at), int(c.of)
}

// Verify compares the payload with the checksums taken when it was appended.
// ErrChecksum names the record and the fragment.
func (r Record) Verify() error {
	if r.p == nil { // the zero Record
		return nil
	}
	return r.p.Guard(r.verify)
}

func (r *Record) verify() error {
	for i := 0; i < len(r.Fragments); i += int(r.checks[i].of) {
		if err := r.verifyRun(i); err != nil {
			return err
		}
	}
	return nil
}

// VerifyFrom is Verify of fragment i and those that have a checksum in common with it,
// for who reads a long record piece by piece. It returns the number of the fragment
// behind them.
func (r Record) VerifyFrom(i int) (next int, err error) {
	first := i - int(r.checks[i].at)
	return first + int(r.checks[i].of), r.p.Guard(func() error { return r.verifyRun(first) })
}

// verifyRun compares the payload of the run that begins with fragment i.
func (r *Record) verifyRun(i int) error {
	sum := uint32(0)
	for k := range int(r.checks[i].of) {
		sum = crc32.Update(sum, castagnoli, r.Payload(i+k))
	}
	if sum != r.checks[i].sum {
		return fmt.Errorf("record %d, fragment %d in frame %d: %w", r.Seq, i, r.Fragments[i].Frame, ErrChecksum)
	}
	return nil
}

// WriteTo writes the payload to w. It does not verify it.
func (r Record) WriteTo(w io.Writer) (n int64, err error) {
	if r.p == nil {
		return 0, nil
	}
	err = r.p.Guard(func() error {
		for i := range r.Fragments {
			k, err := w.Write(r.Payload(i))
			n += int64(k)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return n, fmt.Errorf("write record %d: %w", r.Seq, err)
	}
	return n, nil
}

// entryAt reads an entry that recovery or Commit found good.
func (l *Log) entryAt(pos uint64) (entry, error) {
	e, ok := l.decode(pos)
	if !ok || !e.sane(&l.p.g) {
		return entry{}, fmt.Errorf("%w: log entry %d in slot %d", ErrDamaged, pos, pos%l.p.g.logLen)
	}
	return e, nil
}

// find returns the position of the first entry of record seq, or tail. The
// entries are in order of seq, so no index is needed.
func (l *Log) find(seq uint64) (uint64, error) {
	lo, hi := l.head.pos, l.tail
	for lo < hi {
		mid := lo + (hi-lo)/2
		e, err := l.entryAt(mid)
		if err != nil {
			return 0, err
		}
		if e.seq < seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, nil
}

// recordAt reads the record that begins at pos, and where the next begins.
func (l *Log) recordAt(pos uint64) (Record, uint64, error) {
	r := Record{p: l.p}
	for first := pos; ; pos++ {
		if pos >= l.tail {
			return Record{}, 0, fmt.Errorf("%w: record %d has no end", ErrDamaged, r.Seq)
		}
		e, err := l.entryAt(pos)
		if err != nil {
			return Record{}, 0, err
		}
		if pos == first {
			r.Seq, r.Epoch = e.seq, e.epoch
		}
		if e.seq != r.Seq || (e.flags&flagFirst != 0) != (pos == first) {
			return Record{}, 0, fmt.Errorf("%w: log entry %d does not continue record %d", ErrDamaged, pos, r.Seq)
		}
		r.Header = append(r.Header, e.header[:e.headerLen()]...)
		if e.isFragment() {
			r.fragments(&e, &l.p.g)
		}
		if e.flags&flagLast != 0 {
			return r, pos + 1, nil
		}
	}
}

// overtaken reports whether the writer of a live pool has truncated the log
// beyond pos since the head was read; the head is then brought up to date.
func (l *Log) overtaken(pos uint64) bool {
	h, _, err := l.readHead()
	if err != nil || h.pos <= pos {
		return false
	}
	l.head = h
	if h.pos > l.tail {
		l.tail, l.last = h.pos, h.seq
	}
	l.publish()
	return true
}
