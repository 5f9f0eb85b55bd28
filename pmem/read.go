package pmem

import (
	"context"
	"fmt"
	"iter"
)

// Records yields the committed records in order, up to the last one when it
// was called. It stops after the first error. It skips records that are
// truncated meanwhile; whoever truncates must not do so while the payload of a
// yielded record is still read (Follow holds on to it).
func (l *Log) Records() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		end := l.Committed()
		for pos := uint64(0); ; {
			r, next, err := l.at(pos, end)
			if err == nil && next == 0 {
				return
			}
			if !yield(r, err) || err != nil {
				return
			}
			pos = next
		}
	}
}

// at reads the record at pos or, if that is gone, the oldest. next is 0 when
// there is none before record end.
func (l *Log) at(pos, end uint64) (r Record, next uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return Record{}, 0, ErrClosed
	}
	for {
		if pos = max(pos, l.head.pos); pos >= l.tail {
			return Record{}, 0, nil
		}
		fault := l.p.Guard(func() error {
			r, next, err = l.recordAt(pos)
			if l.p.Live() && (err != nil || r.Verify() != nil) && l.overtaken(pos) {
				next, err = pos, nil
			}
			return nil
		})
		switch {
		case fault != nil:
			return Record{}, 0, fault
		case err == nil && next == pos:
			continue // the writer of a live pool was faster
		case err == nil && r.Seq >= end:
			return Record{}, 0, nil
		}
		return r, next, err
	}
}

// Record returns the committed record seq, or ErrNoRecord.
func (l *Log) Record(seq uint64) (r Record, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return Record{}, ErrClosed
	}
	if seq < l.head.seq || seq >= l.last {
		return Record{}, l.noRecord(seq)
	}
	fault := l.p.Guard(func() error {
		r, err = l.read(seq)
		if l.p.Live() && (err != nil || r.Verify() != nil) && l.overtaken(l.head.pos) && seq < l.head.seq {
			r, err = Record{}, fmt.Errorf("%w; it was truncated just now", l.noRecord(seq))
		}
		return nil
	})
	if fault != nil {
		return Record{}, fmt.Errorf("record %d: %w", seq, fault)
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

// Follow yields the committed records from sequence number from on (0: from
// the oldest one on), and waits for more at the end. During each turn of the
// loop it holds references on the record's frames, so that the payload stays
// even when the record is truncated meanwhile.
//
// It ends with an error: that of ctx, ErrClosed when the pool is closed,
// ErrNoRecord when the next record was truncated before it could be read,
// ErrReadOnly at the end of a pool that another process writes to, or what
// made Commit fail.
func (l *Log) Follow(ctx context.Context, from uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if from == 0 {
			from = l.Head()
		}
		for seq := from; ; seq++ {
			r, err := l.await(ctx, seq)
			if err != nil {
				yield(Record{}, fmt.Errorf("follow log: %w", err))
				return
			}
			more := func() bool {
				defer l.drop(r)
				return yield(r, nil)
			}()
			if !more {
				return
			}
		}
	}
}

// await waits for record seq to be committed and takes references on its frames.
func (l *Log) await(ctx context.Context, seq uint64) (Record, error) {
	for {
		r, wake, err := l.held(seq)
		if err != nil || wake == nil {
			return r, err
		}
		select {
		case <-ctx.Done():
			return Record{}, ctx.Err()
		case <-wake:
		}
	}
}

// held returns record seq with references on its frames, or a channel that is
// closed when there is news.
func (l *Log) held(seq uint64) (r Record, wake <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return Record{}, nil, ErrClosed
	case seq < l.head.seq:
		return Record{}, nil, l.noRecord(seq)
	case seq >= l.last && l.failed != nil:
		return Record{}, nil, l.failed
	case seq >= l.last && l.p.readOnly:
		return Record{}, nil, fmt.Errorf("record %d: %w, and its log does not grow", seq, ErrReadOnly)
	case seq >= l.last:
		if l.wake == nil {
			l.wake = make(chan struct{})
		}
		return Record{}, l.wake, nil
	}
	err = l.p.Guard(func() (err error) {
		r, err = l.read(seq)
		return err
	})
	if err != nil {
		return Record{}, nil, err
	}
	err = l.p.RefAll(r.Fragments)
	return r, nil, err
}

// drop gives back the references of held.
func (l *Log) drop(r Record) {
	t := &l.p.frames
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refs == nil { // the pool was closed in between
		return
	}
	for _, f := range r.Fragments {
		t.unref(f.Frame)
	}
}
