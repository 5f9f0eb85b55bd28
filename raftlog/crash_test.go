package raftlog_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/hashicorp/raft"

	"github.com/pastenet/paste/internal/pmemsim"
	"github.com/pastenet/paste/internal/seed"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/raftlog"
)

// logModel is what raft knows of its log: entries first up to the last one. A
// call that is cut off by a crash may have had its effect or not; of StoreLogs
// also a part from the beginning on.
type logModel struct {
	first   uint64
	logs    []*raft.Log
	storing []*raft.Log // by the call under way
	keep    [2]uint64   // first and next index if the DeleteRange under way takes effect
	stable  map[string][]byte
	key     string // that the Set under way is about
	becomes []byte
}

func (m *logModel) next() uint64 { return m.first + uint64(len(m.logs)) }

// run lives through several crashes of one small store and returns the first
// broken promise. disk is a medium that promises no order between two syncs.
func run(seed uint64, drop func(pmemsim.Call) bool, disk bool) error {
	rng := rand.New(rand.NewPCG(seed, 12))
	mem := make([]byte, 256<<10)
	o := pmem.Options{LogEntries: 64}
	if _, err := pmem.FormatMemory(mem, nil, o); err != nil {
		return err
	}
	m := &logModel{first: 1, stable: map[string][]byte{}}
	setup := func(sim *pmemsim.Memory) { sim.Drop, sim.NoOrder = drop, disk }
	_, err := pmemsim.Lives(6, 100, mem, rng, setup, func(mem []byte, sim *pmemsim.Memory) error {
		p, err := pmem.OpenMemory(mem, sim, o)
		if err != nil {
			return err
		}
		s, err := raftlog.Open(p)
		if err != nil {
			return err
		}
		if err := m.settle(s); err != nil {
			return err
		}
		if used := int(p.Frames()-p.FirstFrame()) - p.Free(); used > 100 {
			return fmt.Errorf("%d frames in use", used)
		}
		for {
			if err := m.work(s, rng); err != nil {
				return err
			}
		}
	})
	return err
}

// settle compares what is found after a crash, and goes on from there.
func (m *logModel) settle(s *raftlog.Store) error {
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	all := append(m.logs[:len(m.logs):len(m.logs)], m.storing...)
	if len(m.logs) == 0 && len(m.storing) > 0 {
		m.first = m.storing[0].Index
	}
	n := last + 1 - first
	if first == 0 {
		n = 0
	}
	switch {
	case n == 0 && (len(m.logs) == 0 || m.keep[0] == m.keep[1] && m.keep[0] != 0):
		m.first, all = m.next(), nil
	case n > 0 && m.keep[0] != m.keep[1] && first == m.keep[0] && last+1 == m.keep[1]:
		all = all[first-m.first:][:n]
		m.first = first
	case n > 0 && first == m.first && last+1 >= m.next() && n <= uint64(len(all)):
		all = all[:n]
	default:
		return fmt.Errorf("found %d to %d, want %d up to %d, %d more, or %v", first, last, m.first, m.next(), len(m.storing), m.keep)
	}
	m.logs, m.storing, m.keep = all, nil, [2]uint64{}
	for _, want := range m.logs {
		var got raft.Log
		if err := s.GetLog(want.Index, &got); err != nil || !same(&got, want) {
			return fmt.Errorf("entry %d of term %d, want %d of term %d: %w", got.Index, got.Term, want.Index, want.Term, err)
		}
	}
	for _, k := range stableKeys {
		got, err := s.Get([]byte(k))
		if err != nil && !errors.Is(err, raftlog.ErrKeyNotFound) {
			return err
		}
		if k == m.key && err == nil && bytes.Equal(got, m.becomes) {
			m.stable[k] = m.becomes
		}
		if want, ok := m.stable[k]; ok != (err == nil) || !bytes.Equal(got, want) {
			return fmt.Errorf("%s is %q, want %q", k, got, want)
		}
	}
	m.key = ""
	return nil
}

var stableKeys = []string{"CurrentTerm", "LastVoteCand"}

func (m *logModel) work(s *raftlog.Store, rng *rand.Rand) error {
	switch rng.IntN(8) {
	case 0:
		m.key = stableKeys[rng.IntN(2)]
		m.becomes = randomBytes(rng, 1+rng.IntN(100))
		if err := s.Set([]byte(m.key), m.becomes); err != nil {
			return err
		}
		m.stable[m.key], m.key = m.becomes, ""
	case 1, 2:
		n := uint64(len(m.logs))
		first, next := m.first+rng.Uint64N(n+1), m.next()
		from, to := m.first, first-1
		if rng.IntN(2) == 0 { // at the end
			next = m.first + rng.Uint64N(n+1)
			first, from, to = m.first, next, m.next()-1
		}
		if from > to {
			return nil
		}
		m.keep = [2]uint64{first, next}
		if err := s.DeleteRange(from, to); err != nil {
			return err
		}
		m.logs = m.logs[first-m.first:][:next-first]
		m.first, m.keep = first, [2]uint64{}
	default:
		first := m.next()
		if len(m.logs) == 0 && rng.IntN(2) == 0 { // as after a snapshot
			first = 1 + rng.Uint64N(1000)
		}
		m.storing = nil
		for i := range 1 + rng.Uint64N(4) {
			m.storing = append(m.storing, &raft.Log{Index: first + i, Term: rng.Uint64(), Data: randomBytes(rng, rng.IntN(3)*rng.IntN(1200))})
		}
		err := s.StoreLogs(m.storing)
		if err == nil {
			m.first = first - uint64(len(m.logs))
			m.logs = append(m.logs, m.storing...)
		} else if !errors.Is(err, pmem.ErrFull) {
			return err
		}
		m.storing = nil
	}
	return nil
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

var scenarios = map[string]pmemsim.Scenario{
	"memory": func(seed uint64, drop func(pmemsim.Call) bool) error { return run(seed, drop, false) },
	"disk":   func(seed uint64, drop func(pmemsim.Call) bool) error { return run(seed, drop, true) },
}

func TestCrash(t *testing.T) {
	seeds := uint64(300)
	if testing.Short() {
		seeds = 50
	}
	for n := range seed.From(seeds) {
		for name, scenario := range scenarios {
			qt.Assert(t, qt.IsNil(scenario(n, nil)), qt.Commentf("%s, seed %d", name, n))
		}
	}
}

// TestMutations leaves out in turn every flush and fence that the store causes,
// here and in the log of the pool: the store must notice.
func TestMutations(t *testing.T) {
	pmemsim.Mutation{
		Files:     []string{"*.go", "../pmem/commit.go", "../pmem/batch.go", "../pmem/loghead.go"},
		Scenarios: scenarios,
		Untested: map[string]string{
			"(*Pool).finishPayloads: p.copySum": "entries lie in frames already",
			"(*Pool).finishPayloads: p.Flush":   "checksums are not known before",
		},
	}.Run(t)
}
