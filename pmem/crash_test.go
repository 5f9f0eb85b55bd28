package pmem

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/pmemsim"
	"github.com/pastenet/paste/internal/seed"
)

// regionOf names the parts of a pool, so that a mutation can strike one of
// several that the same line of code flushes.
func regionOf(g *geometry) func(off uint64) string {
	return func(off uint64) string {
		switch frame := off / uint64(g.frameSize); {
		case frame == 0:
			return "first superblock"
		case frame < headFrame0:
			return "second superblock"
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
	cutting  uint64            // next if the TruncateAfter under way takes effect, or 0
	roots    map[string]string // what each name leads to; "" nothing
	changing string            // name that a SetRoot or DeleteRoot under way is about
	becoming string            // what it will lead to then
}

func newCrashModel() *crashModel {
	return &crashModel{records: map[uint64][]byte{}, head: 1, acked: 1, staged: 1, trimming: 1, roots: map[string]string{}}
}

// crashRun lives through several crashes of one small pool and returns the
// first broken promise.
func crashRun(seed uint64, drop func(pmemsim.Call) bool) error {
	return crashRunOn(seed, drop, func(mem []byte, sim *pmemsim.Memory) ([]byte, Domain) { return mem, sim })
}

// daxRun is crashRun with frames in DRAM and what is kept in the simulated memory.
func daxRun(seed uint64, drop func(pmemsim.Call) bool) error {
	return crashRunOn(seed, drop, func(mem []byte, sim *pmemsim.Memory) ([]byte, Domain) {
		frames := bytes.Clone(mem)
		return frames, &daxDomain{mem: frames, mapped: mem, cpu: sim}
	})
}

func crashRunOn(seed uint64, drop func(pmemsim.Call) bool, on func([]byte, *pmemsim.Memory) ([]byte, Domain)) error {
	rng := rand.New(rand.NewPCG(seed, 1))
	mem, g, err := smallPool()
	if err != nil {
		return err
	}
	m := newCrashModel()
	setup := func(sim *pmemsim.Memory) { sim.Region, sim.Drop = regionOf(&g), drop }
	_, err = pmemsim.Lives(6, 80, mem, rng, setup, func(mem []byte, sim *pmemsim.Memory) error {
		mem, d := on(mem, sim)
		return crashLife(mem, d, m, rng)
	})
	return err
}

// smallPool makes an empty pool.
func smallPool() ([]byte, geometry, error) {
	g, err := layout(200<<10, 2048, 32)
	if err != nil {
		return nil, g, err
	}
	mem := make([]byte, g.size)
	return mem, g, format(mem, &noDomain{mem}, superblock{version: formatVersion, geometry: g, uuid: UUID{1}, created: now()})
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
	if (l.Next() < m.acked || l.Next() > m.staged) && l.Next() != m.cutting {
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
	if err := m.checkRoots(p, frames); err != nil {
		return err
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
	m.acked, m.staged, m.cutting = l.Next(), l.Next(), 0
	return nil
}

// work does one random operation.
func (m *crashModel) work(p *Pool, rng *rand.Rand) error {
	l := p.Log()
	var seq uint64
	var err error
	switch rng.IntN(12) {
	case 0, 1:
		payload := randomPayload(rng, rng.IntN(5000))
		m.records[m.staged] = payload
		m.staged++
		if rng.IntN(2) == 0 {
			seq, err = appendPieces(p, payload, 1+rng.IntN(3000))
		} else {
			seq, err = l.AppendCopy(payload)
		}
		if err == nil && seq != m.staged-1 {
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
	case 6, 7:
		return m.changeRoot(p, rng)
	case 10:
		return m.cut(p, rng)
	case 11:
		m.staged = m.acked
		return l.Discard()
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

// cut drops records at the end of the log.
func (m *crashModel) cut(p *Pool, rng *rand.Rand) error {
	m.cutting = m.head + rng.Uint64N(m.acked-m.head+1)
	if err := p.Log().TruncateAfter(m.cutting - 1); err != nil {
		return err
	}
	m.acked, m.staged, m.cutting = m.cutting, m.cutting, 0
	return nil
}

// checkRoots compares the roots with the model and adds the frames they reach.
func (m *crashModel) checkRoots(p *Pool, frames map[uint32]int) error {
	found := map[string]string{}
	for name, r := range p.Roots() {
		found[name] = string(bytes.TrimRight(r.Value[:], "\x00"))
		if r.Kind != kindChain {
			continue
		}
		found[name] = ""
		for f := r.Frame; f != 0; f = le.Uint32(p.Frame(f)) {
			frames[f]++
			found[name] += string(p.Frame(f)[8:16])
		}
	}
	for _, name := range crashRoots {
		if found[name] == m.roots[name] || name == m.changing && found[name] == m.becoming {
			m.roots[name] = found[name]
			continue
		}
		return fmt.Errorf("root %q leads to %q, want %q (%q may become %q)", name, found[name], m.roots[name], m.changing, m.becoming)
	}
	m.changing = ""
	return nil
}

var crashRoots = []string{"a", "b", "c"}

// changeRoot gives a name a value, a chain of frames, or takes it away.
func (m *crashModel) changeRoot(p *Pool, rng *rand.Rand) error {
	name := crashRoots[rng.IntN(len(crashRoots))]
	old, had := p.Root(name)
	m.changing, m.becoming = name, ""
	var err error
	switch rng.IntN(4) {
	case 0:
		err = p.DeleteRoot(name)
	case 1:
		var r Root
		m.becoming = fmt.Sprintf("v%016x", rng.Uint64())
		copy(r.Value[:], m.becoming)
		err = p.SetRoot(name, r)
	default:
		frames := make([]uint32, 1+rng.IntN(3))
		if p.Alloc(frames) < len(frames) {
			return errors.New("no frame is free")
		}
		for i, f := range frames {
			b := p.Frame(f)
			le.PutUint32(b, 0)
			if i+1 < len(frames) {
				le.PutUint32(b, frames[i+1])
			}
			text := fmt.Sprintf("%08x", rng.Uint32())
			m.becoming += text
			copy(b[8:], text)
			p.Flush(p.Offset(f, 0), 16)
		}
		if err := p.Fence(); err != nil {
			return err
		}
		err = p.SetRoot(name, Root{Kind: kindChain, Frame: frames[0]})
	}
	if err != nil {
		return err
	}
	m.roots[name], m.changing = m.becoming, ""
	if had && old.Kind == kindChain {
		for f := old.Frame; f != 0; {
			next := le.Uint32(p.Frame(f))
			p.Unref(f)
			f = next
		}
	}
	return nil
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
	for n := range seed.From(seeds) {
		qt.Assert(t, qt.IsNil(crashRun(n, nil)), qt.Commentf("seed %d", n))
	}
}
