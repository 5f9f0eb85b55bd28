package kv_test

import (
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
	"github.com/pastenet/paste/pmem/btree"
	"github.com/pastenet/paste/pmem/kv"
)

// change is one call of Put or Delete.
type change struct {
	key, value string
	put        bool
}

// crashModel knows what was acknowledged, and what happened since, in order:
// a crash may keep any number of these, but none without those before it.
type crashModel struct {
	acked map[string]string
	since []change
}

func (m *crashModel) commit() {
	for _, c := range m.since {
		c.apply(m.acked)
	}
	m.since = nil
}

func (c change) apply(m map[string]string) {
	if delete(m, c.key); c.put {
		m[c.key] = c.value
	}
}

// settle finds out how much of what was not acknowledged is there.
func (m *crashModel) settle(found map[string]string) error {
	if maps.Equal(found, m.acked) {
		m.since = nil
		return nil
	}
	for _, c := range m.since {
		c.apply(m.acked)
		if maps.Equal(found, m.acked) {
			m.since = nil
			return nil
		}
	}
	return fmt.Errorf("found %d keys, the model has %d: no number of unacknowledged changes explains that", len(found), len(m.acked))
}

// crashRun lives through several crashes of one small store and returns the
// first broken promise.
func crashRun(seed uint64, drop func(pmemsim.Call) bool) error {
	m := &crashModel{acked: map[string]string{}}
	return lives{stream: 4, size: 512 << 10, calls: 250, entries: 64, checkpoint: 20}.run(seed, drop, m.settle,
		func(s *kv.Store, rng *rand.Rand) error { return crashWork(s, rng, m) })
}

// lives is a store that crashes several times.
type lives struct {
	stream     uint64 // of random numbers
	size       int    // bytes of the pool
	calls      int    // after which it has crashed at the latest
	entries    int    // of the log
	checkpoint uint64
}

// run works until each crash, and has settle compare what is found after it.
func (l lives) run(seed uint64, drop func(pmemsim.Call) bool, settle func(found map[string]string) error, work func(*kv.Store, *rand.Rand) error) error {
	rng := rand.New(rand.NewPCG(seed, l.stream))
	mem := make([]byte, l.size)
	po := pmem.Options{FrameSize: 2048, LogEntries: l.entries}
	o := kv.Options{Checkpoint: l.checkpoint, Reserve: 12, Verify: true}
	if _, err := pmem.FormatMemory(mem, nil, po); err != nil {
		return err
	}
	setup := func(sim *pmemsim.Memory) { sim.Drop = drop }
	mem, err := pmemsim.Lives(5, l.calls, mem, rng, setup, func(mem []byte, sim *pmemsim.Memory) error {
		p, err := pmem.OpenMemory(mem, sim, po)
		if err != nil {
			return err
		}
		s, err := kv.Open(p, o)
		if err != nil {
			return err
		}
		found, err := contents(s)
		if err != nil {
			return err
		}
		if err := settle(found); err != nil {
			return err
		}
		for {
			if err := work(s, rng); err != nil {
				return err
			}
		}
	})
	if err != nil {
		return err
	}
	return leaks(mem, po, o)
}

// leaks closes the store in order and looks for frames that nothing owns.
func leaks(mem []byte, po pmem.Options, o kv.Options) error {
	p, err := pmem.OpenMemory(mem, nil, po)
	if err != nil {
		return err
	}
	s, err := kv.Open(p, o)
	if err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	frames := map[uint32]bool{}
	r, _ := p.Root(kv.RootName)
	if err := btree.Walk(p, r, func(f uint32) error { frames[f] = true; return nil }); err != nil {
		return err
	}
	if used := int(p.Frames()-p.FirstFrame()) - p.Free(); used != len(frames) || p.Log().Len() != 0 || p.Misuses() != 0 {
		return fmt.Errorf("%d frames in use, %d reachable, %d log records, %d misuses", used, len(frames), p.Log().Len(), p.Misuses())
	}
	return nil
}

func contents(s *kv.Store) (map[string]string, error) {
	m := map[string]string{}
	var keys []string
	if err := s.Scan(nil, nil, 0, func(k []byte) bool { keys = append(keys, string(k)); return true }); err != nil {
		return nil, err
	}
	var v kv.Value
	for _, k := range keys {
		if ok, err := s.Get([]byte(k), &v); !ok || err != nil {
			return nil, fmt.Errorf("get %q: %v, %w", k, ok, err)
		}
		m[k] = string(v.AppendTo(s.Pool(), nil))
		s.Release(&v)
	}
	return m, nil
}

func crashWork(s *kv.Store, rng *rand.Rand, m *crashModel) error {
	c := change{key: fmt.Sprintf("%s%d", strings.Repeat("k", rng.IntN(60)), rng.IntN(8))}
	var err error
	switch rng.IntN(10) {
	case 0, 1, 2:
		if err := s.Commit(); err != nil {
			return err
		}
		m.commit()
		return nil
	case 3, 4:
		// If it crashes on the way it may have been made durable already.
		m.since = append(m.since, c)
		_, err = s.Delete([]byte(c.key))
	case 5:
		if err := s.Checkpoint(); err != nil {
			return err
		}
		m.commit()
		return nil
	default:
		c.put = true
		c.value = strings.Repeat(string('a'+rune(rng.IntN(26))), rng.IntN(3)*rng.IntN(1500)+rng.IntN(80))
		m.since = append(m.since, c)
		if rng.IntN(3) == 0 {
			err = s.Apply(kv.Change{Key: []byte(c.key), Bytes: []byte(c.value), Lead: true})
		} else {
			err = putFront(s, rng, c.key, c.value)
		}
	}
	if errors.Is(err, pmem.ErrFull) {
		m.since = m.since[:len(m.since)-1]
		return nil
	}
	return err
}

// putFront puts a value as a server does that received it: behind other bytes
// of its frame, in one or several frames.
func putFront(s *kv.Store, rng *rand.Rand, key, value string) error {
	p := s.Pool()
	if len(value) == 0 || rng.IntN(4) == 0 {
		_, err := s.PutBytes([]byte(key), []byte(value))
		return err
	}
	off := []int{54, 200, 500}[rng.IntN(3)]
	v := kv.Value{}
	pre := rng.IntN(40)
	all := strings.Repeat("-", pre) + value
	var frames []uint32
	defer func() { p.UnrefAll(frames) }()
	for len(all) > 0 {
		var f [1]uint32
		if p.Alloc(f[:]) == 0 {
			return pmem.ErrFull
		}
		frames = append(frames, f[0])
		n := copy(p.Frame(f[0])[off:1800], all)
		v.Frags = append(v.Frags, pmem.Fragment{Frame: f[0], Off: uint16(off), Len: uint16(n)})
		all = all[n:]
	}
	v.Pre = uint8(pre)
	_, err := s.Put([]byte(key), &v, off)
	return err
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

// TestMutations leaves out in turn every flush and fence that the store's
// changes and checkpoints cause, in the log, the tree and here: the store must
// notice, too.
func TestMutations(t *testing.T) {
	pmemsim.Mutation{
		Files:     []string{"*.go", "../batch.go", "../btree/commit.go"},
		Scenarios: map[string]pmemsim.Scenario{"work": crashRun},
		Untested:  map[string]string{"(*Pool).finishPayloads: p.copySum": "values lie in frames already"},
	}.Run(t)
}
