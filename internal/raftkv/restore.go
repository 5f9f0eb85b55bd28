package raftkv

import (
	"errors"
	"fmt"
	"io"

	"github.com/pastenet/paste/pmem/kv"
)

// restoreStep is how many bytes of keys and values are put at once.
const restoreStep = 256 << 10

// Restore makes the store what a snapshot says. A stream that is not a
// snapshot's changes nothing. If it ends early, or the machine does, the store
// is marked as of no use (ErrRestore), until a Restore that succeeds.
func (f *FSM) Restore(rc io.ReadCloser) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer rc.Close()
	r, err := newReader(rc)
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	if f.snap != nil {
		return errors.New("restore snapshot: one is being taken")
	}
	f.failed = ErrRestore // until it is done
	if err := f.restore(r); err != nil {
		f.breaks.Do(func() { close(f.broken) })
		return fmt.Errorf("restore snapshot: %w", err)
	}
	f.applied, f.failed, f.staged = r.index, nil, 0
	return nil
}

func (f *FSM) restore(r *reader) error {
	if err := f.empty(); err != nil {
		return err
	}
	var changes []kv.Change
	size := 0
	for {
		key, value, err := r.item()
		if err != nil && err != io.EOF {
			return err
		}
		if err == nil {
			changes = append(changes, kv.Change{Key: dataKey(key), Bytes: value})
			size += len(key) + len(value)
		}
		if size >= restoreStep || err == io.EOF && len(changes) > 0 {
			if err := errors.Join(f.store.Apply(changes...), f.store.Commit()); err != nil {
				return err
			}
			changes, size = changes[:0], 0
		}
		if err == io.EOF {
			break
		}
	}
	done := []kv.Change{appliedTo(r.index), {Key: restoringKey, Delete: true}}
	return errors.Join(f.store.Apply(done...), f.store.Commit())
}

// empty removes everything and stores the mark, in one step.
func (f *FSM) empty() error {
	if err := f.store.Begin(); err != nil {
		return err
	}
	err := errors.Join(f.store.Clear(), f.store.Apply(kv.Change{Key: restoringKey, Bytes: []byte{1}}), f.store.End())
	if err != nil {
		return err
	}
	return f.store.Commit()
}
