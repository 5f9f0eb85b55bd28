package raftkv

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/pastenet/paste/pmem/kv"
)

// snapshot is the store as it is at one index.
type snapshot struct {
	f      *FSM
	index  uint64
	cursor []byte            // last key that was passed; nil: none
	done   bool              // all were
	saved  map[string]*saved // old values of keys behind the cursor
}

// saved is a value with references to its frames; nil: the key was not there.
type saved = kv.Value

// item is a key with what it had.
type item struct {
	key   []byte
	value *saved
}

// Snapshot begins one, which the store does not wait for. Entries up to
// there are durable in the store.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.failed != nil:
		return nil, f.failed
	case f.snap != nil:
		return nil, errors.New("take snapshot: another one is being taken")
	}
	if err := f.commit(); err != nil {
		return nil, err
	}
	f.snap = &snapshot{f: f, index: f.applied, saved: map[string]*saved{}}
	return f.snap, nil
}

// save puts aside what a key has before it is changed. s may be nil.
func (s *snapshot) save(store *kv.Store, key []byte) error {
	if s == nil || s.done || s.cursor != nil && bytes.Compare(key, s.cursor) <= 0 {
		return nil
	}
	if _, ok := s.saved[string(key)]; ok {
		return nil
	}
	v := new(saved)
	found, err := store.Get(key, v)
	if err != nil {
		return fmt.Errorf("keep a value for the snapshot: %w", err)
	}
	if !found {
		v = nil
	}
	s.saved[string(key)] = v
	return nil
}

// next returns the keys behind the cursor, some of them, and moves it; none at the end.
func (s *snapshot) next() ([]item, error) {
	f := s.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil {
		return nil, f.failed
	}
	var items []item
	var from []byte
	if s.cursor != nil {
		from = append(bytes.Clone(s.cursor), 0)
	}
	err := f.store.Scan([]byte{dataPrefix}, from, f.step, func(key []byte) bool {
		items = append(items, item{key: bytes.Clone(key)})
		return true
	})
	if err != nil {
		return nil, err
	}
	if s.done = len(items) < f.step; !s.done {
		s.cursor = items[len(items)-1].key
	}
	kept := items[:0]
	for _, it := range items {
		if _, ok := s.saved[string(it.key)]; ok {
			continue
		}
		it.value = new(saved)
		if found, err := f.store.Get(it.key, it.value); !found || err != nil {
			s.release(kept)
			return nil, fmt.Errorf("read %q for the snapshot: %w", it.key, err)
		}
		kept = append(kept, it)
	}
	for key, v := range s.saved {
		if !s.done && key > string(s.cursor) {
			continue
		}
		delete(s.saved, key)
		if v != nil {
			kept = append(kept, item{[]byte(key), v})
		}
	}
	slices.SortFunc(kept, func(a, b item) int { return bytes.Compare(a.key, b.key) })
	return kept, nil
}

func (s *snapshot) release(items []item) {
	for _, it := range items {
		s.f.store.Release(it.value)
	}
}

// Persist writes the snapshot to raft's sink.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	err := s.write(newWriter(sink, s.index))
	if err != nil {
		return errors.Join(fmt.Errorf("write snapshot of index %d: %w", s.index, err), sink.Cancel())
	}
	return sink.Close()
}

func (s *snapshot) write(w *writer) error {
	pool := s.f.store.Pool()
	var b []byte
	for !s.done {
		items, err := s.next()
		if err != nil {
			return err
		}
		for _, it := range items {
			if err == nil {
				err = pool.Guard(func() error { b = it.value.AppendTo(pool, b[:0]); return nil })
			}
			if err == nil {
				err = w.item(it.key[1:], b)
			}
		}
		s.release(items)
		if err != nil {
			return err
		}
	}
	return w.end()
}

// Release ends the snapshot.
func (s *snapshot) Release() {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	for v := range maps.Values(s.saved) {
		if v != nil {
			s.f.store.Release(v)
		}
	}
	s.saved, s.done = nil, true
	if s.f.snap == s {
		s.f.snap = nil
	}
}
