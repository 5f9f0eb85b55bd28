package pmem

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/pastenet/paste/internal/pmemsim"
)

// scenarios are what this package does to a pool. Each returns the first broken
// promise; drop leaves calls out that make something durable.
var scenarios = map[string]pmemsim.Scenario{
	"work":      crashRun,
	"dax work":  daxRun,
	"create":    createRun,
	"grow":      growRun,
	"mend":      mendRun,
	"torn":      tornRun,
	"restore":   restoreRun,
	"file work": fileWorkRun,
	"killed":    killedRun,
	"new file":  newFileRun,
	"grow file": growFileRun,
}

// TestMutations leaves out every flush, fence and sync of the package in turn,
// and each of these for every part of the pool that it is used for.
func TestMutations(t *testing.T) {
	needDisk(t)
	const cpu = "an instruction of the CPU: only a power failure shows that it was executed"
	pmemsim.Mutation{
		Files:     []string{"*.go"},
		Scenarios: scenarios,
		Untested: map[string]string{
			"Flush":                        cpu,
			"Fence":                        cpu,
			"Persist":                      cpu,
			"CopyNT":                       cpu,
			"flushRange":                   cpu,
			"copyLinesNT":                  cpu,
			"flushSum":                     cpu,
			"copySum":                      cpu,
			"flushSumRange":                cpu,
			"copySumLines":                 cpu,
			"(*cpuDomain).FlushSum":        cpu,
			"(*cpuDomain).CopySum":         cpu,
			"(*Pool).copySum: c.CopySum":   "it stores as well, as every test on real memory shows; otherwise " + cpu,
			"(*Pool).flushSum: c.FlushSum": cpu,
			"(*cpuDomain).Flush":           cpu,
			"(*cpuDomain).CopyNT":          cpu,
			"(*cpuDomain).handOver":        cpu,
			"(*cpuDomain).Order":           cpu,
			"(*cpuDomain).Fence":           cpu,
			"(*Pool).CopyNT: c.CopyNT":     "it stores as well, as every test on real memory shows; otherwise " + cpu,
		},
	}.Run(t)
}

// crashAgain runs work on mem until a crash, or to its end, and returns what
// is found then.
func crashAgain(mem []byte, g *geometry, rng *rand.Rand, calls int, drop func(pmemsim.Call) bool, work func(Domain) error) (image []byte, finished bool, err error) {
	sim := pmemsim.New(mem, rng)
	sim.Region, sim.Drop = regionOf(g), drop
	sim.CrashAfter(1 + rng.IntN(calls))
	crashed, err := pmemsim.Run(func() error { return work(sim) })
	return sim.Crash(), !crashed, err
}

// intact checks that what exists twice is there twice.
func intact(mem []byte) error {
	s, err := readSuper(mem)
	if err != nil {
		return err
	}
	_, head, err := readHead(mem, &s.geometry, uuidSeed(s.uuid))
	if err != nil {
		return err
	}
	var t rootTable
	roots, err := t.read(mem, &s.geometry, uuidSeed(s.uuid))
	if err == nil && (s.bad != noneBad || head != noneBad || roots != noneBad) {
		err = fmt.Errorf("bad copies: %d of the superblock, %d of the log head, %d of the roots", s.bad, head, roots)
	}
	return err
}

// createRun creates a pool over an older one or over nothing: after a crash
// the old pool is whole, or the new one is, or it is known as incomplete.
func createRun(seed uint64, drop func(pmemsim.Call) bool) error {
	rng := rand.New(rand.NewPCG(seed, 2))
	g, err := layout(200<<10, 2048, 32)
	if err != nil {
		return err
	}
	mem := make([]byte, g.size)
	blank := seed%2 == 1
	if !blank {
		if err := format(mem, &noDomain{mem}, superblock{version: formatVersion, geometry: g, uuid: UUID{1}, created: now()}); err != nil {
			return err
		}
	}
	image, finished, err := crashAgain(mem, &g, rng, 12, drop, func(d Domain) error {
		return format(mem, d, superblock{version: formatVersion, geometry: g, uuid: UUID{2}, created: now()})
	})
	if err != nil {
		return err
	}
	if finished {
		if err := intact(image); err != nil {
			return err
		}
	}
	s, err := readSuper(image)
	if err != nil {
		// Memory that held nothing may also hold torn pieces of a superblock.
		if errors.Is(err, ErrIncomplete) || blank && (errors.Is(err, ErrNotPool) || errors.Is(err, ErrDamaged)) {
			return nil
		}
		return err
	}
	p, err := newPool(image, s, Options{}, &noDomain{image}, poolFile{})
	if err == nil && p.Log().Next() != 1 {
		err = fmt.Errorf("the log goes on at %d", p.Log().Next())
	}
	return err
}

// growRun makes a pool larger, whose file is longer already: it has the old or
// the new size.
func growRun(seed uint64, drop func(pmemsim.Call) bool) error {
	rng := rand.New(rand.NewPCG(seed, 4))
	small, err := layout(200<<10, 2048, 32)
	if err != nil {
		return err
	}
	large, err := layout(400<<10, 2048, small.logLen)
	if err != nil {
		return err
	}
	mem := make([]byte, large.size)
	if err := format(mem, &noDomain{mem}, superblock{version: formatVersion, geometry: small, uuid: UUID{1}, created: now()}); err != nil {
		return err
	}
	mem[rng.IntN(2)*2048+70] ^= byte(rng.IntN(2)) // one copy may be rotten
	before, err := readSuper(mem)
	if err != nil {
		return err
	}
	image, finished, err := crashAgain(mem, &small, rng, 8, drop, func(d Domain) error { return growSuper(mem, d, before, large) })
	if err != nil {
		return err
	}
	if finished {
		if err := intact(image); err != nil {
			return err
		}
	}
	p, err := OpenMemory(image, nil, Options{})
	small.runs, large.runs = true, true
	if err == nil && p.g != small && (p.g != large || !finished && p.g == small) {
		err = fmt.Errorf("geometry %+v", p.g)
	}
	return err
}

// mendRun opens a pool of which copies are rotten: whatever the crash, the
// next one opens it, and one that finished has mended it.
func mendRun(seed uint64, drop func(pmemsim.Call) bool) error {
	rng := rand.New(rand.NewPCG(seed, 5))
	mem, g, err := smallPool()
	if err != nil {
		return err
	}
	for _, copies := range [][2]uint64{{70, 2048 + 70}, {headOffset(&g, 0) + 16, headOffset(&g, 1) + 16}, {rootsOffset(&g, 0) + 60, rootsOffset(&g, 1) + 60}} {
		mem[copies[rng.IntN(2)]] ^= byte(rng.IntN(2))
	}
	image, finished, err := crashAgain(mem, &g, rng, 12, drop, func(d Domain) error {
		_, err := OpenMemory(mem, d, Options{})
		return err
	})
	if err != nil {
		return err
	}
	if finished {
		return intact(image)
	}
	_, err = OpenMemory(image, nil, Options{})
	return err
}

// tornRun opens a pool whose last record lost its payload, and lets the same
// bytes arrive in the same frame again: the record does not come back.
func tornRun(seed uint64, drop func(pmemsim.Call) bool) error {
	rng := rand.New(rand.NewPCG(seed, 6))
	g, err := layout(200<<10, 2048, 32)
	if err != nil {
		return err
	}
	mem := make([]byte, g.size)
	d := pmemsim.New(mem, rng)
	d.NoOrder = true
	if err := format(mem, d, superblock{version: formatVersion, geometry: g, uuid: UUID{1}, created: now()}); err != nil {
		return err
	}
	p, err := OpenMemory(mem, d, Options{})
	if err != nil {
		return err
	}
	for _, payload := range []string{"whole", "torn"} {
		p.Log().AppendCopy([]byte(payload))
		if err := p.Log().Commit(); err != nil {
			return err
		}
	}
	r, err := p.Log().Record(2)
	if err != nil {
		return err
	}
	at := p.Offset(r.Fragments[0].Frame, 0)
	image := bytes.Clone(mem)
	image[at] ^= 1
	image, _, err = crashAgain(image, &g, rng, 1000, drop, func(d Domain) error {
		p, err := OpenMemory(image, d, Options{})
		if err == nil && p.Log().Next() != 2 {
			err = errors.New("the torn record was not left out")
		}
		return err
	})
	if err != nil {
		return err
	}
	image[at] ^= 1
	p, err = OpenMemory(image, nil, Options{})
	if err == nil && p.Log().Next() != 2 {
		err = errors.New("the torn record came back")
	}
	return err
}

// restoreRun restores a pool into memory: after a crash what is there is whole.
func restoreRun(seed uint64, drop func(pmemsim.Call) bool) error {
	rng := rand.New(rand.NewPCG(seed, 7))
	mem, g, err := smallPool()
	if err != nil {
		return err
	}
	archive, err := smallArchive()
	if err != nil {
		return err
	}
	image, finished, err := crashAgain(mem, &g, rng, 20, drop, func(d Domain) error {
		p, err := OpenMemory(mem, d, Options{})
		if err != nil {
			return err
		}
		return p.restore(bytes.NewReader(archive))
	})
	if err != nil {
		return err
	}
	p, err := OpenMemory(image, nil, Options{})
	if err != nil {
		return err
	}
	return archived(p, finished)
}

// smallArchive is the dump of a pool with a record and a root that leads to a frame.
var smallArchive = sync.OnceValues(func() ([]byte, error) {
	mem, _, err := smallPool()
	if err != nil {
		return nil, err
	}
	p, err := OpenMemory(mem, &noDomain{mem}, Options{})
	if err != nil {
		return nil, err
	}
	var f [1]uint32
	p.Alloc(f[:])
	copy(p.Frame(f[0]), "frame")
	p.Log().AppendCopy([]byte("record"))
	err = errors.Join(p.Log().Commit(), p.SetRoot("root", Root{Kind: KindFrame, Frame: f[0]}))
	var b bytes.Buffer
	err = errors.Join(err, p.Dump(&b, nil))
	return b.Bytes(), err
})

// archived checks that a pool holds what smallArchive does, or, unless all is
// set, a part.
func archived(p *Pool, all bool) error {
	r, ok := p.Root("root")
	if !ok && all || ok && string(bytes.TrimRight(p.Frame(r.Frame), "\x00")) != "frame" {
		return fmt.Errorf("root %v, its frame holds %q", ok, p.Frame(r.Frame))
	}
	rec, err := p.Log().Record(1)
	if errors.Is(err, ErrNoRecord) && !all {
		return nil
	}
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if rec.WriteTo(&b); b.String() != "record" {
		return fmt.Errorf("record %q", b.String())
	}
	return nil
}
