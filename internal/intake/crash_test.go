package intake

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/pmemsim"
	"github.com/pastenet/paste/pmem"
)

// world is what clients were told, and the order in which the server does things.
type world struct {
	cursors map[string]uint64 // acknowledged
	stored  map[string]uint64 // by key, acknowledged
	next    int
	// logFirst commits the log before the state: the mistake that must show.
	logFirst bool
}

func sumOf(s string) (out Sum) {
	copy(out[:], s)
	return out
}

// check compares what is found after a crash.
func (w *world) check(p *pmem.Pool, s *State) error {
	for name, next := range w.cursors {
		if c, ok := s.Cursor(name); !ok || c.Next < next {
			return fmt.Errorf("cursor %s is at %d (there: %v), acknowledged up to %d", name, c.Next, ok, next)
		}
	}
	for key, seq := range w.stored {
		if got, _, found, err := s.Find(sumOf(key)); err != nil || !found || got != seq {
			return fmt.Errorf("key %s: record %d (there: %v, %v), told %d", key, got, found, err, seq)
		}
	}
	if f, ok := s.Floor(); ok && p.Log().Head() > f.Next {
		return fmt.Errorf("the log begins at %d, and cursor %s protects from %d on", p.Log().Head(), f.Name, f.Next)
	}
	// A record that is in the log has the key that it was stored by, and the other way about.
	by := map[string]uint64{}
	for r, err := range p.Log().Records() {
		if err != nil {
			return err
		}
		key := string(r.Payload(0))
		if was := by[key]; was != 0 {
			return fmt.Errorf("key %s is stored twice, by records %d and %d", key, was, r.Seq)
		}
		by[key] = r.Seq
		if got, _, found, err := s.Find(sumOf(key)); err != nil || !found || got != r.Seq {
			return fmt.Errorf("record %d: its key leads to %d (there: %v, %v)", r.Seq, got, found, err)
		}
	}
	return nil
}

// batch does what a server does between two sends.
func (w *world) batch(p *pmem.Pool, s *State, rng *rand.Rand) error {
	cursors, stored := map[string]uint64{}, map[string]uint64{}
	for range 1 + rng.IntN(4) {
		switch rng.IntN(4) {
		case 0:
			name := fmt.Sprint("c", rng.IntN(3))
			c, ok := s.Cursor(name)
			if !ok {
				c = Cursor{Name: name, Next: p.Log().Head(), Protects: true}
			}
			if n := p.Log().Committed(); n > c.Next {
				c.Next += 1 + rng.Uint64N(n-c.Next)
			}
			if err := s.Set(c); err != nil {
				return err
			}
			cursors[name] = c.Next
		default:
			// A client tries again until it is told.
			key := fmt.Sprint("key", w.next)
			seq, _, found, err := s.Find(sumOf(key))
			if err != nil {
				return err
			}
			if !found {
				if err := s.RoomForKey(); err != nil {
					return err
				}
				if seq, err = p.Log().AppendCopy([]byte(key)); err != nil {
					return err
				}
				if err := s.Remember(sumOf(key), sumOf("asked"), seq); err != nil {
					return err
				}
			}
			if rng.IntN(3) > 0 {
				stored[key] = seq
				w.next++
			}
		}
	}
	commits := []func() error{s.Commit, p.Log().Commit}
	if w.logFirst {
		commits[0], commits[1] = commits[1], commits[0]
	}
	for _, commit := range commits {
		if err := commit(); err != nil {
			return err
		}
	}
	for name, next := range cursors {
		w.cursors[name] = next
	}
	for key, seq := range stored {
		w.stored[key] = seq
	}
	if f, ok := s.Floor(); ok && rng.IntN(3) == 0 && f.Next > p.Log().Head() {
		if err := p.Log().Truncate(f.Next - 1); err != nil {
			return err
		}
	}
	return nil
}

func crashRun(seed uint64, logFirst bool) error {
	rng := rand.New(rand.NewPCG(seed, 7))
	w := &world{cursors: map[string]uint64{}, stored: map[string]uint64{}, logFirst: logFirst}
	po := pmem.Options{FrameSize: 2048, LogEntries: 256}
	mem := make([]byte, 1<<20)
	if _, err := pmem.FormatMemory(mem, nil, po); err != nil {
		return err
	}
	life := func(mem []byte, sim pmem.Domain) (*pmem.Pool, *State, error) {
		p, err := pmem.OpenMemory(mem, sim, po)
		if err != nil {
			return nil, nil, err
		}
		s, err := Open(p, Options{Keys: 1 << 20})
		if err == nil {
			err = w.check(p, s)
		}
		return p, s, err
	}
	mem, err := pmemsim.Lives(6, 300, mem, rng, nil, func(mem []byte, sim *pmemsim.Memory) error {
		p, s, err := life(mem, sim)
		for err == nil {
			err = w.batch(p, s, rng)
			if errors.Is(err, pmem.ErrFull) {
				if len(s.cursors) > 0 {
					err = nil // the protected log fills the pool; cursors go on
				}
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	_, _, err = life(mem, nil)
	return err
}

// Whatever a crash leaves, what clients were told is there, and nothing is stored twice.
func TestCrash(t *testing.T) {
	for seed := range uint64(25) {
		qt.Assert(t, qt.IsNil(crashRun(seed, false)), qt.Commentf("seed %d", seed))
	}
}

// The test above finds the wrong order of the two commits.
func TestCrashFindsWrongOrder(t *testing.T) {
	for seed := range uint64(150) {
		if crashRun(seed, true) != nil {
			return
		}
	}
	t.Error("the log was committed before its keys, and no crash has shown it")
}

func openPool(t *testing.T) *pmem.Pool {
	p, err := pmem.NewMemory("intake-test", pmem.Options{Size: 8 << 20})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(p.Close())) })
	return p
}

// Keys are kept within the window, and no more than their limit; the oldest go first.
func TestKeys(t *testing.T) {
	p := openPool(t)
	now := time.Unix(1000, 0)
	o := Options{Keys: 10, Window: time.Hour, Now: func() time.Time { return now }}
	s, err := Open(p, o)
	qt.Assert(t, qt.IsNil(err))
	store := func(key string) {
		t.Helper()
		qt.Assert(t, qt.IsNil(s.RoomForKey()))
		seq, err := p.Log().AppendCopy([]byte(key))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(s.Remember(sumOf(key), sumOf("asked"), seq)))
		qt.Assert(t, qt.IsNil(s.Commit()))
		qt.Assert(t, qt.IsNil(p.Log().Commit()))
	}
	found := func(key string) bool {
		t.Helper()
		_, _, ok, err := s.Find(sumOf(key))
		qt.Assert(t, qt.IsNil(err))
		return ok
	}
	for i := range 25 {
		store(fmt.Sprint(i))
	}
	qt.Check(t, qt.Equals(s.Keys(), 10))
	qt.Check(t, qt.IsFalse(found("14")))
	qt.Check(t, qt.IsTrue(found("15")))
	s.Close()
	s, err = Open(p, o)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(s.Keys(), 10))
	now = now.Add(time.Hour - 1)
	qt.Check(t, qt.IsTrue(found("24")))
	now = now.Add(1)
	qt.Check(t, qt.IsFalse(found("24")))
	store("24") // anew
	qt.Check(t, qt.IsTrue(found("24")))
	store("25")
	store("26")
	qt.Check(t, qt.Equals(s.Keys(), 3)) // without those of an hour ago
	s.Close()
}

// Records are older than an age only if a mark says so, whatever the clock does.
func TestMarks(t *testing.T) {
	p := openPool(t)
	now := time.Unix(100_000, 0)
	s, err := Open(p, Options{Now: func() time.Time { return now }})
	qt.Assert(t, qt.IsNil(err))
	older := func(head uint64) uint64 {
		t.Helper()
		below, err := s.Older(time.Minute, head)
		qt.Assert(t, qt.IsNil(err))
		return below
	}
	for i := range uint64(10) { // a record each 10 seconds
		qt.Assert(t, qt.IsNil(s.Mark(i+2, time.Second)))
		now = now.Add(10 * time.Second)
	}
	qt.Check(t, qt.Equals(older(1), 6))
	qt.Check(t, qt.Equals(len(s.marks), 6)) // those that were passed say nothing more
	now = now.Add(-time.Hour)               // the clock was wrong
	qt.Assert(t, qt.IsNil(s.Mark(20, time.Second)))
	qt.Check(t, qt.Equals(older(1), 0))
	now = now.Add(time.Minute)
	qt.Check(t, qt.Equals(older(1), 20))
	older(20) // they are dropped
	qt.Check(t, qt.Equals(len(s.marks), 0))
	s.Close()
}
