package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/pmemsim"
	"github.com/pastenet/paste/internal/seed"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/kv"
)

// groupModel is crashModel for changes that belong together: a crash keeps
// any number of groups, and each as a whole.
type groupModel struct {
	acked map[string]string
	since [][]change // a change without a key removes all
	group []change   // between Begin and End
	open  bool
}

func (m *groupModel) note(group []change) {
	if m.open {
		m.group = append(m.group, group...)
		return
	}
	m.since = append(m.since, group)
}

func applyGroup(to map[string]string, group []change) {
	for _, c := range group {
		if c.key == "" {
			clear(to)
			continue
		}
		c.apply(to)
	}
}

func (m *groupModel) commit() {
	for _, g := range m.since {
		applyGroup(m.acked, g)
	}
	m.since = nil
}

func (m *groupModel) settle(found map[string]string) error {
	since := m.since
	m.since, m.group, m.open = nil, nil, false
	if maps.Equal(found, m.acked) {
		return nil
	}
	for _, g := range since {
		applyGroup(m.acked, g)
		if maps.Equal(found, m.acked) {
			return nil
		}
	}
	return fmt.Errorf("found %d keys, the model has %d: no number of whole groups explains that", len(found), len(m.acked))
}

// groupWork does something at random.
func groupWork(s *kv.Store, rng *rand.Rand, m *groupModel) error {
	switch n := rng.IntN(20); {
	case n < 5 && !m.open:
		if err := s.Commit(); err != nil {
			return err
		}
		m.commit()
		return nil
	case n == 5 && !m.open:
		if err := s.Begin(); err != nil {
			return err
		}
		m.open = true
		return nil
	case n < 8 && m.open:
		m.open = false
		m.since = append(m.since, m.group)
		m.group = nil
		return s.End()
	case n == 8 && rng.IntN(4) == 0:
		m.note([]change{{}})
		return undone(m, s.Clear())
	}
	var group []change
	var changes []kv.Change
	for range 1 + rng.IntN(4) {
		c := change{key: fmt.Sprintf("%s%d", strings.Repeat("k", rng.IntN(60)), rng.IntN(8)), put: rng.IntN(3) > 0}
		if c.put {
			c.value = strings.Repeat(string('a'+rune(rng.IntN(26))), rng.IntN(3)*rng.IntN(1500)+rng.IntN(80))
		}
		head := rng.IntN(min(len(c.value), 20) + 1)
		group = append(group, c)
		changes = append(changes, kv.Change{Key: []byte(c.key), Delete: !c.put, Head: []byte(c.value[:head]), Bytes: []byte(c.value[head:]), Lead: rng.IntN(2) == 0})
	}
	m.note(group)
	return undone(m, s.Apply(changes...))
}

// undone takes back the last note if the pool was full.
func undone(m *groupModel, err error) error {
	if !errors.Is(err, pmem.ErrFull) {
		return err
	}
	return errRefused
}

var errRefused = errors.New("refused")

func groupRun(seed uint64, drop func(pmemsim.Call) bool) error {
	m := &groupModel{acked: map[string]string{}}
	return lives{stream: 5, size: 768 << 10, calls: 300, entries: 96, checkpoint: 30}.run(seed, drop, m.settle,
		func(s *kv.Store, rng *rand.Rand) error {
			since, group := m.since, m.group
			err := groupWork(s, rng, m)
			if err == errRefused {
				m.since, m.group = since, group
				return nil
			}
			return err
		})
}

// TestGroupCrash: of changes that belong together a crash leaves all or none.
func TestGroupCrash(t *testing.T) {
	seeds := uint64(200)
	if testing.Short() {
		seeds = 40
	}
	for n := range seed.From(seeds) {
		qt.Assert(t, qt.IsNil(groupRun(n, nil)), qt.Commentf("seed %d", n))
	}
}

// A value with its lead comes back alone, before and after the log was replayed, with
// a checksum that is right; too long a key is refused.
func TestLead(t *testing.T) {
	p := memory(t, 4<<20, 0)
	s, err := kv.Open(p, kv.Options{Verify: true})
	qt.Assert(t, qt.IsNil(err))
	want := map[string]string{}
	for i, n := range []int{0, 64, 65, 1000, 2048, 2100, 9000} {
		key := strings.Repeat("k", i) + "!"
		want[key] = strings.Repeat("v", n)
		qt.Assert(t, qt.IsNil(s.Apply(kv.Change{Key: []byte(key), Head: []byte(want[key][:min(n, 9)]), Bytes: []byte(want[key][min(n, 9):]), Lead: true})))
	}
	key := strings.Repeat("k", kv.MaxLead)
	want[key] = strings.Repeat("w", 100)
	qt.Assert(t, qt.IsNil(s.Apply(kv.Change{Key: []byte(key), Bytes: []byte(want[key]), Lead: true})))
	err = s.Apply(kv.Change{Key: []byte(key + "k"), Bytes: []byte("v"), Lead: true})
	qt.Check(t, qt.ErrorIs(err, kv.ErrKeyTooLong))
	qt.Assert(t, qt.IsNil(s.Commit()))

	var v kv.Value
	found, err := s.Peek([]byte(key), &v)
	qt.Assert(t, qt.IsTrue(found && err == nil))
	qt.Check(t, qt.Equals(v.Pre, 255))
	for _, s := range []*kv.Store{s, replayed(t, p)} {
		got, err := contents(s)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.DeepEquals(got, want))
	}
}

// replayed opens the store in what a pool would have after a crash.
func replayed(t *testing.T, p *pmem.Pool) *kv.Store {
	q, err := pmem.OpenMemory(bytes.Clone(p.Mem()), nil, pmem.Options{})
	qt.Assert(t, qt.IsNil(err))
	s, err := kv.Open(q, kv.Options{Verify: true})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(s.Stats().Replayed > 0))
	return s
}

// Changes that find no room change nothing.
func TestApplyFull(t *testing.T) {
	p := memory(t, 1<<20, 0)
	s, err := kv.Open(p, kv.Options{Verify: true})
	qt.Assert(t, qt.IsNil(err))
	for i := 0; ; i++ {
		err := s.Apply(
			kv.Change{Key: fmt.Appendf(nil, "a%d", i), Bytes: make([]byte, 3000)},
			kv.Change{Key: fmt.Appendf(nil, "b%d", i), Bytes: make([]byte, 3000)})
		if err != nil {
			qt.Assert(t, qt.ErrorIs(err, pmem.ErrFull))
			qt.Assert(t, qt.IsTrue(i > 10), qt.Commentf("%d", i))
			_, a := get(t, s, fmt.Sprint("a", i))
			qt.Check(t, qt.IsFalse(a))
			qt.Check(t, qt.Equals(s.Len(), uint64(2*i)))
			break
		}
		qt.Assert(t, qt.IsNil(s.Commit()))
	}
	qt.Assert(t, qt.IsNil(s.Clear()))
	qt.Assert(t, qt.IsNil(s.Commit()))
	qt.Check(t, qt.Equals(s.Len(), 0))
	qt.Check(t, qt.IsNil(s.Apply(kv.Change{Key: []byte("k"), Bytes: make([]byte, 100<<10)})))
}

// Count and Pick agree with what is there.
func TestCountPick(t *testing.T) {
	s, err := kv.Open(memory(t, 16<<20, 0), kv.Options{})
	qt.Assert(t, qt.IsNil(err))
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 5000 {
		qt.Assert(t, qt.IsNil(s.Apply(kv.Change{Key: fmt.Appendf(nil, "%04d", i)})))
	}
	for range 300 {
		lo, hi := rng.IntN(5001), rng.IntN(5001)
		n, err := s.Count(fmt.Appendf(nil, "%04d", lo), fmt.Appendf(nil, "%04d", hi))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(n, uint64(max(0, hi-lo))), qt.Commentf("%d to %d", lo, hi))
		key := ""
		found, err := s.Pick(fmt.Appendf(nil, "%04d", lo), fmt.Appendf(nil, "%04d", hi), rng.IntN, func(k []byte, _ *kv.Value) { key = string(k) })
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(found, hi > lo))
		if found {
			qt.Assert(t, qt.IsTrue(key >= fmt.Sprintf("%04d", lo) && key < fmt.Sprintf("%04d", hi)), qt.Commentf("%s: %d to %d", key, lo, hi))
		}
	}
	seen := map[string]bool{}
	for range 50000 {
		_, err := s.Pick(nil, nil, rng.IntN, func(k []byte, _ *kv.Value) { seen[string(k)] = true })
		qt.Assert(t, qt.IsNil(err))
	}
	qt.Check(t, qt.IsTrue(len(seen) > 4500), qt.Commentf("%d", len(seen)))
}
