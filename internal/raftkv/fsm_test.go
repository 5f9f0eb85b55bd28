package raftkv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/hashicorp/raft"

	"github.com/pastenet/paste/internal/pmemsim"
	"github.com/pastenet/paste/internal/seed"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/kv"
)

func openFSM(mem []byte, d pmem.Domain) (*FSM, error) {
	p, err := pmem.OpenMemory(mem, d, pmem.Options{})
	if err != nil {
		return nil, err
	}
	s, err := kv.Open(p, kv.Options{Purpose: Purpose, Verify: true, Checkpoint: 30})
	if err != nil {
		return nil, err
	}
	f, err := NewFSM(s)
	if err == nil {
		f.step = 3 // so that changes come in between
	}
	return f, err
}

func newFSM(t testing.TB) (*FSM, []byte) {
	t.Helper()
	mem := make([]byte, 1<<20)
	_, err := pmem.FormatMemory(mem, nil, pmem.Options{})
	qt.Assert(t, qt.IsNil(err))
	f, err := openFSM(mem, nil)
	qt.Assert(t, qt.IsNil(err))
	return f, mem
}

func put(index uint64, pairs ...string) *raft.Log {
	var c Command
	for i := 0; i < len(pairs); i += 2 {
		c.Put([]byte(pairs[i]), []byte(pairs[i+1]))
	}
	return &raft.Log{Index: index, Type: raft.LogCommand, Data: c.Bytes()}
}

// sink is a snapshot in memory.
type sink struct {
	bytes.Buffer
	closed, cancelled bool
}

func (s *sink) ID() string    { return "sink" }
func (s *sink) Close() error  { s.closed = true; return nil }
func (s *sink) Cancel() error { s.cancelled = true; return nil }

func contents(f *FSM) (map[string]string, error) {
	m := map[string]string{}
	var keys [][]byte
	if err := f.store.Scan([]byte{dataPrefix}, nil, 0, func(k []byte) bool { keys = append(keys, bytes.Clone(k[1:])); return true }); err != nil {
		return nil, err
	}
	for _, k := range keys {
		v, found, err := f.Get(nil, k)
		if err != nil || !found {
			return nil, fmt.Errorf("%q: %v, %w", k, found, err)
		}
		m[string(k)] = string(v)
	}
	return m, nil
}

func snapshotOf(t testing.TB, f *FSM) []byte {
	t.Helper()
	s, err := f.Snapshot()
	qt.Assert(t, qt.IsNil(err))
	defer s.Release()
	var to sink
	qt.Assert(t, qt.IsNil(s.Persist(&to)))
	qt.Assert(t, qt.IsTrue(to.closed))
	return to.Bytes()
}

func restore(f *FSM, stream []byte) error { return f.Restore(io.NopCloser(bytes.NewReader(stream))) }

func TestApply(t *testing.T) {
	f, mem := newFSM(t)
	results := f.ApplyBatch([]*raft.Log{put(1, "a", "1", "b", "2"), {Index: 2, Type: raft.LogCommand, Data: []byte{99}}, put(3, "", strings.Repeat("x", 5000))})
	qt.Assert(t, qt.IsNil(results[0]))
	qt.Assert(t, qt.ErrorIs(results[1].(error), ErrCommand))
	qt.Assert(t, qt.IsNil(results[2]))
	var c Command
	qt.Assert(t, qt.IsNil(c.Delete([]byte("a"))))
	qt.Assert(t, qt.ErrorIs(c.Put(make([]byte, MaxKey+1), nil), kv.ErrKeyTooLong))
	qt.Assert(t, qt.IsNil(f.Apply(&raft.Log{Index: 4, Type: raft.LogCommand, Data: c.Bytes()})))
	want := map[string]string{"b": "2", "": strings.Repeat("x", 5000)}
	got, err := contents(f)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(got, want))
	snapshotOf(t, f) // which commits
	f, err = openFSM(mem, nil)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(f.Applied(), 4))
	qt.Assert(t, qt.IsNil(f.Apply(put(2, "b", "old")))) // raft plays its log again
	got, err = contents(f)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(got, want))
}

// What does not parse is refused, never a panic.
func FuzzCommand(f *testing.F) {
	f.Add(put(1, "key", "value", "", "").Data)
	f.Add([]byte{commandVersion, opDelete, 1, 'k'})
	f.Add([]byte{commandVersion, opPut, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		changes, err := parse(b, nil)
		if err != nil {
			qt.Assert(t, qt.ErrorIs(err, ErrCommand))
			return
		}
		var c Command
		for _, ch := range changes {
			if ch.Delete {
				qt.Assert(t, qt.IsNil(c.Delete(ch.Key[1:])))
			} else {
				qt.Assert(t, qt.IsNil(c.Put(ch.Key[1:], ch.Bytes)))
			}
		}
		again, err := parse(c.Bytes(), nil)
		qt.Assert(t, qt.Equals(len(again), len(changes)))
		qt.Assert(t, qt.IsTrue(err == nil || len(changes) == 0))
	})
}

// randomChanges applies some to the store and to the model.
func randomChanges(f *FSM, m map[string]string, rng *rand.Rand) error {
	var logs []*raft.Log
	for i := range 1 + rng.Uint64N(3) {
		var c Command
		for range 1 + rng.IntN(3) {
			key := fmt.Sprint(rng.IntN(20))
			if rng.IntN(3) == 0 {
				delete(m, key)
				c.Delete([]byte(key))
			} else {
				m[key] = strings.Repeat(string(rune('a'+rng.IntN(26))), rng.IntN(2)*rng.IntN(2500)+rng.IntN(50))
				c.Put([]byte(key), []byte(m[key]))
			}
		}
		logs = append(logs, &raft.Log{Index: f.applied + 1 + i, Type: raft.LogCommand, Data: c.Bytes()})
	}
	for _, r := range f.ApplyBatch(logs) {
		if r != nil {
			return r.(error)
		}
	}
	return nil
}

// A snapshot is that of the index at which it was begun, whatever is changed
// while it is written, and nothing of it is kept afterwards.
func TestSnapshotWhileChanging(t *testing.T) {
	for n := range seed.From(100) {
		rng := rand.New(rand.NewPCG(n, 21))
		f, _ := newFSM(t)
		m := map[string]string{}
		for range rng.IntN(20) {
			qt.Assert(t, qt.IsNil(randomChanges(f, m, rng)))
		}
		s, err := f.Snapshot()
		qt.Assert(t, qt.IsNil(err))
		want, index := maps.Clone(m), f.Applied()
		_, err = f.Snapshot()
		qt.Assert(t, qt.ErrorMatches(err, ".*another one.*"))
		var stream bytes.Buffer
		snap, w := s.(*snapshot), newWriter(&stream, index)
		for !snap.done {
			for range rng.IntN(3) {
				qt.Assert(t, qt.IsNil(randomChanges(f, m, rng)))
			}
			items, err := snap.next()
			qt.Assert(t, qt.IsNil(err))
			for range rng.IntN(3) {
				qt.Assert(t, qt.IsNil(randomChanges(f, m, rng)))
			}
			for _, it := range items {
				qt.Assert(t, qt.IsNil(w.item(it.key[1:], it.value.AppendTo(f.store.Pool(), nil))))
			}
			snap.release(items)
		}
		qt.Assert(t, qt.IsNil(w.end()))
		s.Release()
		other, _ := newFSM(t)
		qt.Assert(t, qt.IsNil(restore(other, stream.Bytes())))
		got, err := contents(other)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.DeepEquals(got, want), qt.Commentf("seed %d", n))
		qt.Assert(t, qt.Equals(other.Applied(), index))
		qt.Assert(t, qt.Equals(f.store.Pool().Misuses(), 0))
	}
}

// A snapshot of which a byte is missing or wrong is not restored, and the store
// says so, also when it is opened again; until one is that is whole.
func TestTornSnapshot(t *testing.T) {
	from, _ := newFSM(t)
	qt.Assert(t, qt.IsNil(from.Apply(put(5, "a", "1", "b", strings.Repeat("x", 100)))))
	good := snapshotOf(t, from)
	bad := [][]byte{append(bytes.Clone(good), 0)}
	for i := range good {
		flipped := bytes.Clone(good)
		flipped[i] ^= 1
		bad = append(bad, good[:i], flipped)
	}
	for i, stream := range bad {
		f, mem := newFSM(t)
		qt.Assert(t, qt.IsNil(f.Apply(put(3, "old", "value"))))
		qt.Assert(t, qt.IsNil(f.store.Commit()))
		err := restore(f, stream)
		qt.Assert(t, qt.ErrorIs(err, ErrTorn), qt.Commentf("stream %d", i))
		if f.Err() == nil { // nothing was changed
			_, found, err := f.Get(nil, []byte("old"))
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsTrue(found))
			continue
		}
		<-f.Broken()
		f, err = openFSM(mem, nil)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(f.Applied(), 0))
		_, _, err = f.Get(nil, []byte("a"))
		qt.Assert(t, qt.ErrorIs(err, ErrRestore))
		qt.Assert(t, qt.ErrorIs(f.Apply(put(6, "b", "2")).(error), ErrRestore))
		qt.Assert(t, qt.IsNil(restore(f, good)))
		got, err := contents(f)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.DeepEquals(got, map[string]string{"a": "1", "b": strings.Repeat("x", 100)}))
	}
}

// A store that cannot take an entry stops, and does not go on with a hole.
func TestFullStore(t *testing.T) {
	f, _ := newFSM(t)
	huge := put(1, "k", strings.Repeat("x", 2<<20))
	qt.Assert(t, qt.IsNotNil(f.Apply(huge)))
	<-f.Broken()
	qt.Assert(t, qt.IsNotNil(f.Apply(put(2, "a", "1"))))
	qt.Assert(t, qt.IsNotNil(f.Err()))
}

// crashRun lives through several crashes: what is found is the store of one
// index, not before what was committed, or what Restore has marked.
func crashRun(seed uint64, good []byte) error {
	rng := rand.New(rand.NewPCG(seed, 22))
	mem := make([]byte, 512<<10)
	if _, err := pmem.FormatMemory(mem, nil, pmem.Options{LogEntries: 128}); err != nil {
		return err
	}
	states := map[uint64]map[string]string{0: {}}
	least, restoring := uint64(0), false
	_, err := pmemsim.Lives(5, 150, mem, rng, nil, func(mem []byte, sim *pmemsim.Memory) error {
		f, err := openFSM(mem, sim)
		if err != nil {
			return err
		}
		if restoring && f.Err() != nil {
			if err := restore(f, good); err != nil {
				return err
			}
		}
		got, err := contents(f)
		if err != nil {
			return err
		}
		at := f.Applied()
		if restoring && at == 1000 {
			states = map[uint64]map[string]string{1000: {"a": "1"}}
		} else if at < least {
			return fmt.Errorf("the store is of index %d, %d was committed", at, least)
		}
		restoring, least = false, at
		if !maps.Equal(got, states[at]) {
			return fmt.Errorf("%d keys at index %d, want %d", len(got), at, len(states[at]))
		}
		m := maps.Clone(got)
		for {
			switch rng.IntN(12) {
			case 0:
				if err := f.store.Commit(); err != nil {
					return err
				}
				least = f.Applied()
			case 1:
				restoring = true
				if err := restore(f, good); err != nil {
					return err
				}
				restoring, least = false, 1000
				m = map[string]string{"a": "1"}
				states = map[uint64]map[string]string{1000: maps.Clone(m)}
			default:
				before := f.applied
				next := maps.Clone(m)
				// If it crashes on the way, this may be what is found.
				if err := randomChanges(f, next, rand.New(rand.NewPCG(seed, before))); err != nil {
					if errors.Is(err, pmem.ErrFull) {
						return nil
					}
					return err
				}
				m = next
				states[f.applied] = maps.Clone(m)
			}
		}
	})
	return err
}

func TestCrash(t *testing.T) {
	from, _ := newFSM(t)
	qt.Assert(t, qt.IsNil(from.Apply(put(1000, "a", "1"))))
	good := snapshotOf(t, from)
	seeds := uint64(200)
	if testing.Short() {
		seeds = 40
	}
	for n := range seed.From(seeds) {
		qt.Assert(t, qt.IsNil(crashRun(n, good)), qt.Commentf("seed %d", n))
	}
}
