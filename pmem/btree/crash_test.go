package btree_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/pmemsim"
	"github.com/pastenet/paste/internal/seed"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/btree"
)

// crashRun lives through several crashes of one small tree and returns the
// first broken promise.
func crashRun(seed uint64, drop func(pmemsim.Call) bool) error {
	rng := rand.New(rand.NewPCG(seed, 3))
	mem := make([]byte, 512<<10)
	o := pmem.Options{FrameSize: 2048, LogEntries: 32}
	p, err := pmem.FormatMemory(mem, nil, o)
	if err != nil {
		return err
	}
	if _, err := btree.Create(p, "t", btree.Options{Reserve: 8}); err != nil {
		return err
	}
	// What the crash may leave: the last commit, or the one under way.
	acked, next := map[string]string{}, map[string]string{}
	setup := func(sim *pmemsim.Memory) { sim.Drop = drop }
	_, err = pmemsim.Lives(4, 120, mem, rng, setup, func(mem []byte, sim *pmemsim.Memory) error {
		p, err := pmem.OpenMemory(mem, sim, o)
		if err != nil {
			return err
		}
		t, err := btree.Open(p, "t", btree.Options{Reserve: 8})
		if err != nil {
			return err
		}
		found, err := whole(p, t)
		if err != nil {
			return err
		}
		if !maps.Equal(found, acked) && !maps.Equal(found, next) {
			return fmt.Errorf("%d keys, acknowledged %d, or %d with the commit under way", len(found), len(acked), len(next))
		}
		acked, next = found, found
		return crashWork(t, rng, &acked, &next)
	})
	return err
}

// whole reads the tree of a pool that holds nothing else, and looks for frames
// that nothing owns.
func whole(p *pmem.Pool, t *btree.Tree) (map[string]string, error) {
	found, frames, err := contents(p, t)
	if err != nil {
		return nil, err
	}
	if used := int(p.Frames()-p.FirstFrame()) - p.Free(); used != frames {
		return nil, fmt.Errorf("%d frames in use, %d reachable", used, frames)
	}
	return found, nil
}

// restoreRun restores a tree until a crash: what is there then is a part of it,
// and all when it had finished.
func restoreRun(seed uint64, drop func(pmemsim.Call) bool) error {
	rng := rand.New(rand.NewPCG(seed, 5))
	want, dump, err := crashDump()
	if err != nil {
		return err
	}
	o := pmem.Options{FrameSize: 2048, LogEntries: 32}
	mem := make([]byte, 512<<10)
	if _, err := pmem.FormatMemory(mem, nil, o); err != nil {
		return err
	}
	sim := pmemsim.New(mem, rng)
	sim.Drop = drop
	sim.CrashAfter(1 + rng.IntN(100))
	crashed, err := pmemsim.Run(func() error {
		p, err := pmem.OpenMemory(mem, sim, o)
		if err != nil {
			return err
		}
		return btree.Restore(p, "t", bytes.NewReader(dump))
	})
	if err != nil {
		return err
	}
	mem = sim.Crash()
	p, err := pmem.OpenMemory(mem, nil, o)
	if err != nil {
		return err
	}
	t, err := btree.Open(p, "t", btree.Options{})
	if err != nil {
		if _, ok := p.Root("t"); !ok && crashed {
			return nil
		}
		return err
	}
	found, err := whole(p, t)
	if err != nil {
		return err
	}
	if !maps.Equal(found, want) && (!crashed || len(found) > 0) {
		return fmt.Errorf("%d keys of %d restored, crashed: %v", len(found), len(want), crashed)
	}
	return nil
}

// crashDump returns the content of a tree, and its dump.
func crashDump() (want map[string]string, dump []byte, err error) {
	p, err := pmem.FormatMemory(make([]byte, 512<<10), nil, pmem.Options{FrameSize: 2048, LogEntries: 32})
	if err != nil {
		return nil, nil, err
	}
	t, err := btree.Create(p, "t", btree.Options{})
	if err != nil {
		return nil, nil, err
	}
	want = map[string]string{}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 60 {
		if err := crashChange(t, rng, want); err != nil {
			return nil, nil, err
		}
	}
	if err := t.Commit(); err != nil {
		return nil, nil, err
	}
	r, _ := p.Root("t")
	var b bytes.Buffer
	err = btree.Dump(p, "t", r, &b)
	return want, b.Bytes(), err
}

// contents reads the whole tree, and counts the frames that it owns.
func contents(p *pmem.Pool, t *btree.Tree) (map[string]string, int, error) {
	m := map[string]string{}
	var v btree.Value
	var bad error
	err := t.Ascend(nil, func(e btree.Entry) bool {
		e.Value(&v)
		m[string(e.Key())] = string(v.AppendTo(p, nil))
		bad = v.Verify(p)
		return bad == nil
	})
	if err == nil {
		err = bad
	}
	frames := map[uint32]bool{}
	if err == nil {
		r, _ := p.Root("t")
		err = btree.Walk(p, r, func(f uint32) error { frames[f] = true; return nil })
	}
	return m, len(frames), err
}

func crashWork(t *btree.Tree, rng *rand.Rand, acked, next *map[string]string) error {
	m := maps.Clone(*acked)
	for {
		switch rng.IntN(10) {
		case 0:
			*next = maps.Clone(m)
			if err := t.Commit(); err != nil {
				return err
			}
			*acked = *next
		case 1:
			*next = maps.Clone(m)
			c, err := t.BeginCommit()
			if err != nil {
				return err
			}
			for done := false; !done; {
				if done, err = c.Step(1 + rng.IntN(3)); err != nil {
					return err
				}
				if err := crashChange(t, rng, m); err != nil {
					return err
				}
			}
			*acked = *next
		default:
			if err := crashChange(t, rng, m); err != nil {
				return err
			}
		}
	}
}

// crashChange makes one change to the tree and to the model.
func crashChange(t *btree.Tree, rng *rand.Rand, m map[string]string) error {
	k := fmt.Sprintf("%s%d", strings.Repeat("k", rng.IntN(100)), rng.IntN(10))
	if rng.IntN(3) == 0 {
		_, err := t.Delete([]byte(k))
		if err == nil {
			delete(m, k)
		}
		return ignoreFull(err)
	}
	v := strings.Repeat(string('a'+rune(rng.IntN(26))), rng.IntN(200))
	err := put(t, k, []byte(v), []int{0, 3, 50}[rng.IntN(3)])
	if err == nil {
		m[k] = v
	}
	return ignoreFull(err)
}

func TestCrash(t *testing.T) {
	seeds := uint64(200)
	if testing.Short() {
		seeds = 40
	}
	for n := range seed.From(seeds) {
		qt.Assert(t, qt.IsNil(crashRun(n, nil)), qt.Commentf("seed %d", n))
	}
}

// TestMutations leaves out every flush and fence of this package in turn: one of
// the scenarios must notice.
func TestMutations(t *testing.T) {
	pmemsim.Mutation{
		Files:     []string{"*.go"},
		Scenarios: map[string]pmemsim.Scenario{"work": crashRun, "restore": restoreRun},
	}.Run(t)
}
