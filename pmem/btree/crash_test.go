package btree_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/pmemsim"
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
	for life := range 4 {
		sim := pmemsim.New(mem, rng)
		sim.Drop = drop
		sim.CrashAfter(1 + rng.IntN(120))
		_, err := pmemsim.Run(func() error {
			p, err := pmem.OpenMemory(mem, sim, o)
			if err != nil {
				return fmt.Errorf("life %d: %w", life, err)
			}
			t, err := btree.Open(p, "t", btree.Options{Reserve: 8})
			if err != nil {
				return err
			}
			found, frames, err := contents(p, t)
			if err != nil {
				return err
			}
			if !maps.Equal(found, acked) && !maps.Equal(found, next) {
				return fmt.Errorf("life %d: %d keys, acknowledged %d, or %d with the commit under way", life, len(found), len(acked), len(next))
			}
			if used := int(p.Frames()-p.FirstFrame()) - p.Free(); used != frames {
				return fmt.Errorf("life %d: %d frames in use, %d reachable", life, used, frames)
			}
			acked, next = found, found
			return crashWork(t, rng, &acked, &next)
		})
		if err != nil {
			return err
		}
		mem = sim.Crash()
	}
	return nil
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
	for seed := range seeds {
		qt.Assert(t, qt.IsNil(crashRun(seed, nil)), qt.Commentf("seed %d", seed))
	}
}

// TestCrashFindsMissingCalls leaves out every flush and fence of this package
// in turn: the simulation must notice each.
func TestCrashFindsMissingCalls(t *testing.T) {
	sites := map[string]bool{}
	for seed := range uint64(20) {
		qt.Assert(t, qt.IsNil(crashRun(seed, func(c pmemsim.Call) bool {
			if strings.HasPrefix(c.Site, "btree.(*") {
				sites[c.Op+" in "+c.Site] = true
			}
			return false
		})))
	}
	qt.Assert(t, qt.IsTrue(len(sites) >= 2), qt.Commentf("%v", sites))
	for site := range sites {
		t.Run(site, func(t *testing.T) {
			for seed := range uint64(1000) {
				if err := crashRun(seed, func(c pmemsim.Call) bool { return c.Op+" in "+c.Site == site }); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Error("nothing noticed that it is missing")
		})
	}
}
