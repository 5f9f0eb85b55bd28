package pmem

import (
	"fmt"
	"hash/crc32"
	"io"
	"iter"
)

// Record is one committed record. Its payload stays in the pool: it is valid
// until the record is truncated and the pool closed.
type Record struct {
	Seq       uint64
	Length    int64 // of the payload in bytes
	Fragments []Fragment
	sums      []uint32
	p         *Pool
}

// Payload returns the bytes of fragment i, in the pool.
func (r Record) Payload(i int) []byte {
	f := r.Fragments[i]
	return r.p.Frame(f.Frame)[f.Off : uint32(f.Off)+uint32(f.Len)]
}

// Verify compares the payload with the checksums taken when it was appended.
// ErrChecksum names the record and the fragment.
func (r Record) Verify() error {
	for i, f := range r.Fragments {
		if crc32.Checksum(r.Payload(i), castagnoli) != r.sums[i] {
			return fmt.Errorf("record %d, fragment %d in frame %d: %w", r.Seq, i, f.Frame, ErrChecksum)
		}
	}
	return nil
}

// WriteTo writes the payload to w. It does not verify it.
func (r Record) WriteTo(w io.Writer) (int64, error) {
	var n int64
	for i := range r.Fragments {
		k, err := w.Write(r.Payload(i))
		n += int64(k)
		if err != nil {
			return n, fmt.Errorf("write record %d: %w", r.Seq, err)
		}
	}
	return n, nil
}

// Records yields the committed records in order. It stops after the first
// error. Of a pool that is Live it skips records truncated meanwhile.
func (l *Log) Records() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if l.closed {
			yield(Record{}, ErrClosed)
			return
		}
		for pos := l.head.pos; pos < l.tail; {
			r, next, err := l.recordAt(pos)
			if l.p.Live() && (err != nil || r.Verify() != nil) && l.overtaken(pos) {
				pos = l.head.pos
				continue
			}
			if !yield(r, err) || err != nil {
				return
			}
			pos = next
		}
	}
}

// Record returns the committed record seq, or ErrNoRecord.
func (l *Log) Record(seq uint64) (Record, error) {
	if l.closed {
		return Record{}, ErrClosed
	}
	if seq < l.head.seq || seq >= l.last {
		return Record{}, l.noRecord(seq)
	}
	r, err := l.read(seq)
	if l.p.Live() && (err != nil || r.Verify() != nil) && l.overtaken(l.head.pos) && seq < l.head.seq {
		return Record{}, fmt.Errorf("%w; it was truncated just now", l.noRecord(seq))
	}
	return r, err
}

func (l *Log) read(seq uint64) (Record, error) {
	pos, err := l.find(seq)
	if err != nil {
		return Record{}, err
	}
	r, _, err := l.recordAt(pos)
	if err == nil && r.Seq != seq {
		err = fmt.Errorf("record %d: %w: its entries are gone", seq, ErrDamaged)
	}
	return r, err
}

func (l *Log) noRecord(seq uint64) error {
	if l.head.seq == l.last {
		return fmt.Errorf("record %d: %w: the log is empty", seq, ErrNoRecord)
	}
	return fmt.Errorf("record %d: %w: the log holds %d to %d", seq, ErrNoRecord, l.head.seq, l.last-1)
}

// entryAt reads an entry that recovery or Commit found good.
func (l *Log) entryAt(pos uint64) (entry, error) {
	e, ok := l.decode(pos)
	if !ok || !e.inside(&l.p.g) {
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
			r.Seq = e.seq
		}
		if e.seq != r.Seq || (e.flags&flagFirst != 0) != (pos == first) {
			return Record{}, 0, fmt.Errorf("%w: log entry %d does not continue record %d", ErrDamaged, pos, r.Seq)
		}
		if e.flags&flagEmpty == 0 {
			r.Fragments = append(r.Fragments, Fragment{Frame: e.frame, Off: e.off, Len: e.len})
			r.sums = append(r.sums, e.sum)
			r.Length += int64(e.len)
		}
		if e.flags&flagLast != 0 {
			return r, pos + 1, nil
		}
	}
}

// overtaken reports whether the writer of a live pool has truncated the log
// beyond pos since the head was read; the head is then brought up to date.
func (l *Log) overtaken(pos uint64) bool {
	h, _, err := readHead(l.p.mem, &l.p.g, l.seed)
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
