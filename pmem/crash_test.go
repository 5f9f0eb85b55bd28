package pmem

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/go-quicktest/qt"
)

// crashMem is memory behind a cache that a crash may catch at any moment.
//
// mem is what the CPU sees; durable is what certainly survives. A flushed line
// is pending until the next fence. At every call some dirty 8-byte words reach
// durable on their own, as evictions do, and at the crash any subset of the
// others may: a stricter memory than real ones, which keep the order of stores
// within a line.
type crashMem struct {
	g       geometry
	mem     []byte
	durable []byte
	pending map[uint64][CacheLine]byte
	rng     *rand.Rand
	left    int             // calls until the crash
	last    region          // what was flushed last
	drop    func(call) bool // a call that is to do nothing: a bug in the pool's code
}

// region is a part of the pool, region.fence the fence that follows its flush.
type region string

const (
	inSuper region = "superblock"
	inHead0 region = "first log head"
	inHead1 region = "second log head"
	inRing  region = "log entries"
	inData  region = "payload"
)

// call is one call of the persister.
type call struct {
	op string
	at region
}

// crashed is what the simulated crash panics with.
type crashed struct{}

func newCrashMem(mem []byte, rng *rand.Rand) *crashMem {
	return &crashMem{mem: mem, durable: bytes.Clone(mem), pending: map[uint64][CacheLine]byte{}, rng: rng, left: -1}
}

func (c *crashMem) regionOf(off uint64) region {
	switch frame := off / uint64(c.g.frameSize); {
	case frame < headFrame0:
		return inSuper
	case frame == headFrame0:
		return inHead0
	case frame == headFrame1:
		return inHead1
	case frame < uint64(c.g.first):
		return inRing
	}
	return inData
}

// step is called before every call takes effect.
func (c *crashMem) step() {
	if c.rng.IntN(4) == 0 {
		c.evict(0.3)
	}
	if c.left--; c.left == 0 {
		panic(crashed{})
	}
}

// evict lets a share of the dirty words become durable.
func (c *crashMem) evict(share float64) {
	for line := uint64(0); line < uint64(len(c.mem)); line += CacheLine {
		if bytes.Equal(c.mem[line:line+CacheLine], c.durable[line:line+CacheLine]) {
			continue
		}
		for w := line; w < line+CacheLine; w += 8 {
			if c.rng.Float64() >= share {
				continue
			}
			copy(c.durable[w:w+8], c.mem[w:w+8])
			if p, ok := c.pending[line]; ok {
				copy(p[w-line:], c.mem[w:w+8])
				c.pending[line] = p
			}
		}
	}
}

func (c *crashMem) flush(off, n uint64) {
	c.step()
	c.last = c.regionOf(off)
	if c.drop != nil && c.drop(call{"flush", c.last}) {
		return
	}
	for line := off &^ (CacheLine - 1); line < off+n; line += CacheLine {
		c.pending[line] = [CacheLine]byte(c.mem[line:])
	}
}

func (c *crashMem) fence() {
	c.step()
	if c.drop != nil && c.drop(call{"fence", c.last}) {
		return
	}
	for line, b := range c.pending {
		copy(c.durable[line:], b[:])
	}
	clear(c.pending)
}

func (c *crashMem) copyNT(off uint64, src []byte) {
	copy(c.mem[off:], src)
	if len(src) > 0 {
		c.flush(off, uint64(len(src)))
	}
}

// image is what is found after the crash.
func (c *crashMem) image() []byte {
	for line, b := range c.pending { // a flush under way may have finished
		if c.rng.IntN(2) == 0 {
			copy(c.durable[line:], b[:])
		}
	}
	c.evict([]float64{0, 0.5, 1}[c.rng.IntN(3)])
	return c.durable
}

// crashModel is what a user of the log knows.
type crashModel struct {
	records  map[uint64][]byte // payload by sequence number, staged ones included
	head     uint64            // of the log
	acked    uint64            // records below are committed
	staged   uint64            // records below were appended
	trimming uint64            // head if the Truncate under way takes effect
}

// crashRun lives through several crashes of one small pool and returns the
// first broken promise.
func crashRun(seed uint64, drop func(call) bool) (err error) {
	rng := rand.New(rand.NewPCG(seed, 1))
	g, err := layout(200<<10, 2048, 32)
	if err != nil {
		return err
	}
	mem := make([]byte, g.size)
	c := newCrashMem(mem, rng)
	c.g = g
	format(mem, c, superblock{geometry: g, uuid: UUID{1}, created: now()})
	m := &crashModel{records: map[uint64][]byte{}, head: 1, acked: 1, staged: 1, trimming: 1}
	for range 6 {
		image := c.image()
		c = newCrashMem(bytes.Clone(image), rng)
		c.g, c.drop = g, drop
		c.left = 1 + rng.IntN(60)
		if err := crashLife(c, m, rng); err != nil {
			return err
		}
	}
	return nil
}

// crashLife opens the pool, checks what is there, and works until the crash.
func crashLife(c *crashMem, m *crashModel, rng *rand.Rand) (err error) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(crashed); !ok {
				panic(r)
			}
		}
	}()
	s, _, err := readSuper(c.mem)
	if err != nil {
		return fmt.Errorf("superblock: %w", err)
	}
	p, err := newPool(c.mem, s, Options{}, c)
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

// TestCrashFindsMissingCalls leaves out every flush and every fence in turn:
// the simulation must notice each.
func TestCrashFindsMissingCalls(t *testing.T) {
	for _, op := range []string{"flush", "fence"} {
		for _, at := range []region{inData, inRing, inHead0, inHead1} {
			missing := call{op, at}
			t.Run(fmt.Sprintf("%s after %s", op, at), func(t *testing.T) {
				for seed := range uint64(5000) {
					if err := crashRun(seed, func(c call) bool { return c == missing }); err != nil {
						t.Logf("seed %d: %v", seed, err)
						return
					}
				}
				t.Error("nothing noticed that it is missing")
			})
		}
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
		c := newCrashMem(mem, rng)
		c.g = g
		if seed%2 == 0 {
			format(mem, c, superblock{geometry: g, uuid: old, created: now()})
		}
		c.left = 1 + rng.IntN(14)
		func() {
			defer func() { recover() }()
			format(mem, c, superblock{geometry: g, uuid: fresh, created: now()})
		}()
		image := c.image()
		s, _, err := readSuper(image)
		if err != nil {
			// Memory that held nothing may also hold torn pieces of a superblock.
			blank := seed%2 == 1 && (errors.Is(err, ErrNotPool) || errors.Is(err, ErrDamaged))
			qt.Assert(t, qt.IsTrue(blank || errors.Is(err, ErrIncomplete)), qt.Commentf("seed %d: %v", seed, err))
			continue
		}
		after := newCrashMem(image, rng)
		after.g = g
		p, err := newPool(image, s, Options{}, after)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("seed %d", seed))
		qt.Assert(t, qt.Equals(p.Log().Next(), 1))
	}
}
