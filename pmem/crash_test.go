package pmem

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/pmemsim"
)

// regionOf names the parts of a pool, so that a mutation can strike one of
// several that the same line of code flushes.
func regionOf(g *geometry) func(off uint64) string {
	return func(off uint64) string {
		switch frame := off / uint64(g.frameSize); {
		case frame < headFrame0:
			return "superblock"
		case frame == headFrame0:
			return "first log head"
		case frame == headFrame1:
			return "second log head"
		case off < rootsOffset(g, 1):
			return "first roots"
		case off < g.logOff:
			return "second roots"
		case frame < uint64(g.first):
			return "log entries"
		}
		return "payload"
	}
}

// crashModel is what a user of the log knows.
type crashModel struct {
	records  map[uint64][]byte // payload by sequence number, staged ones included
	head     uint64            // of the log
	acked    uint64            // records below are committed
	staged   uint64            // records below were appended
	trimming uint64            // head if the Truncate under way takes effect
}

func newCrashModel() *crashModel {
	return &crashModel{records: map[uint64][]byte{}, head: 1, acked: 1, staged: 1, trimming: 1}
}

// crashRun lives through several crashes of one small pool and returns the
// first broken promise.
func crashRun(seed uint64, drop func(pmemsim.Call) bool) (err error) {
	rng := rand.New(rand.NewPCG(seed, 1))
	g, err := layout(200<<10, 2048, 32)
	if err != nil {
		return err
	}
	mem := make([]byte, g.size)
	c := pmemsim.New(mem, rng)
	if err := format(mem, c, superblock{geometry: g, uuid: UUID{1}, created: now()}); err != nil {
		return err
	}
	m := newCrashModel()
	for range 6 {
		mem := c.Crash()
		c = pmemsim.New(mem, rng)
		c.Region, c.Drop = regionOf(&g), drop
		c.CrashAfter(1 + rng.IntN(80))
		if _, err := pmemsim.Run(func() error { return crashLife(mem, c, m, rng) }); err != nil {
			return err
		}
	}
	return nil
}

// crashLife opens the pool, checks what is there, and works until the crash.
func crashLife(mem []byte, c Domain, m *crashModel, rng *rand.Rand) error {
	p, err := OpenMemory(mem, c, Options{})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if err := m.check(p); err != nil {
		return err
	}
	for {
		if err := m.work(p, rng); err != nil {
			return err
		}
	}
}

// check compares a recovered pool with the model, and goes on from what it found.
func (m *crashModel) check(p *Pool) error {
	l := p.Log()
	if l.Head() != m.head && l.Head() != m.trimming {
		return fmt.Errorf("head %d, want %d or %d", l.Head(), m.head, m.trimming)
	}
	if l.Next() < m.acked || l.Next() > m.staged {
		return fmt.Errorf("next %d, acknowledged %d, appended %d", l.Next(), m.acked, m.staged)
	}
	want := l.Head()
	frames := map[uint32]int{}
	for r, err := range l.Records() {
		if err != nil {
			return err
		}
		var got bytes.Buffer
		r.WriteTo(&got)
		if r.Seq != want || !bytes.Equal(got.Bytes(), m.records[r.Seq]) || r.Verify() != nil {
			return fmt.Errorf("record %d (expected %d) differs: %v", r.Seq, want, r.Verify())
		}
		for _, f := range r.Fragments {
			frames[f.Frame]++
		}
		want++
	}
	if want != l.Next() {
		return fmt.Errorf("%d records listed, %d expected", want, l.Next())
	}
	for f, n := range frames {
		if p.Refs(f) != n {
			return fmt.Errorf("frame %d has %d references, want %d", f, p.Refs(f), n)
		}
	}
	if used := int(p.Frames()-p.FirstFrame()) - p.Free(); used != len(frames) {
		return fmt.Errorf("%d frames in use, %d referred to", used, len(frames))
	}
	m.head, m.trimming = l.Head(), l.Head()
	m.acked, m.staged = l.Next(), l.Next()
	return nil
}

// work does one random operation.
func (m *crashModel) work(p *Pool, rng *rand.Rand) error {
	l := p.Log()
	var seq uint64
	var err error
	switch rng.IntN(8) {
	case 0, 1:
		payload := randomPayload(rng, rng.IntN(5000))
		m.records[m.staged] = payload
		m.staged++
		if seq, err = l.AppendCopy(payload); err == nil && seq != m.staged-1 {
			return fmt.Errorf("sequence number %d, want %d", seq, m.staged-1)
		}
	case 2, 3:
		m.staged++
		err = m.appendInPlace(p, rng, m.staged-1)
	case 4, 5:
		if err := l.Commit(); err != nil {
			return err
		}
		m.acked = m.staged
		return nil
	default:
		if m.acked == m.head {
			return nil
		}
		upTo := m.head + rng.Uint64N(m.acked-m.head)
		m.trimming = upTo + 1
		if err := l.Truncate(upTo); err != nil {
			return err
		}
		m.head = upTo + 1
		return nil
	}
	if errors.Is(err, ErrFull) {
		m.staged--
		return nil
	}
	return err
}

// appendInPlace stores a payload in several frames as a NIC would, two
// fragments to a frame at times.
func (m *crashModel) appendInPlace(p *Pool, rng *rand.Rand, seq uint64) error {
	frames := make([]uint32, 1+rng.IntN(3))
	frames = frames[:p.Alloc(frames)]
	defer func() { p.UnrefAll(frames) }()
	var frags []Fragment
	var payload []byte
	for _, f := range frames {
		for off := 0; off < 2048; off += 1024 {
			part := randomPayload(rng, 1+rng.IntN(1000))
			copy(p.Frame(f)[off+7:], part)
			frags = append(frags, Fragment{Frame: f, Off: uint16(off + 7), Len: uint16(len(part))})
			payload = append(payload, part...)
		}
	}
	m.records[seq] = payload
	_, err := p.Log().Append(frags, true)
	return err
}

func randomPayload(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func TestCrash(t *testing.T) {
	seeds := uint64(300)
	if testing.Short() {
		seeds = 50
	}
	for seed := range seeds {
		qt.Assert(t, qt.IsNil(crashRun(seed, nil)), qt.Commentf("seed %d", seed))
	}
}

// TestCrashFindsMissingCalls leaves out every flush, order and fence of the
// package in turn, wherever it is called from and whatever part of the pool it
// is for: the simulation must notice each.
func TestCrashFindsMissingCalls(t *testing.T) {
	sites := map[pmemsim.Call]int{}
	for seed := range uint64(100) {
		crashRun(seed, func(c pmemsim.Call) bool { sites[c]++; return false })
	}
	for missing, n := range sites {
		t.Run(fmt.Sprintf("%s of %s in %s", missing.Op, missing.Region, missing.Site), func(t *testing.T) {
			for seed := range uint64(20000) {
				if err := crashRun(seed, func(c pmemsim.Call) bool { return c == missing }); err != nil {
					t.Logf("called %d times; seed %d: %v", n, seed, err)
					return
				}
			}
			t.Error("nothing noticed that it is missing")
		})
	}
}

// Creating a pool over an older one, crashing at any call: either the old pool
// is whole, or the new one is, or it is known as incomplete.
func TestCrashDuringCreate(t *testing.T) {
	g, err := layout(200<<10, 2048, 32)
	qt.Assert(t, qt.IsNil(err))
	old, fresh := UUID{1}, UUID{2}
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 2))
		mem := make([]byte, g.size)
		c := pmemsim.New(mem, rng)
		if seed%2 == 0 {
			format(mem, c, superblock{geometry: g, uuid: old, created: now()})
		}
		c.CrashAfter(1 + rng.IntN(16))
		_, err := pmemsim.Run(func() error {
			return format(mem, c, superblock{geometry: g, uuid: fresh, created: now()})
		})
		qt.Assert(t, qt.IsNil(err))
		image := c.Crash()
		s, err := readSuper(image)
		if err != nil {
			// Memory that held nothing may also hold torn pieces of a superblock.
			blank := seed%2 == 1 && (errors.Is(err, ErrNotPool) || errors.Is(err, ErrDamaged))
			qt.Assert(t, qt.IsTrue(blank || errors.Is(err, ErrIncomplete)), qt.Commentf("seed %d: %v", seed, err))
			continue
		}
		p, err := newPool(image, s, Options{}, pmemsim.New(image, rng))
		qt.Assert(t, qt.IsNil(err), qt.Commentf("seed %d", seed))
		qt.Assert(t, qt.Equals(p.Log().Next(), 1))
	}
}
