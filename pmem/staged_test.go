package pmem

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/pmemsim"
	"github.com/pastenet/paste/internal/seed"
	"golang.org/x/sys/unix"
)

// onDisk returns a directory for pools that are staged.
func onDisk(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "pmem-test-")
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { os.RemoveAll(dir) })
	pl, err := placeOf(filepath.Join(dir, "p"))
	qt.Assert(t, qt.IsNil(err))
	if pl.backing != BackingFile {
		// The code is the same, only the place is told from the file system.
		t.Logf("%s is on %v", dir, pl.backing)
	}
	return dir
}

func TestFileBacking(t *testing.T) {
	dir := onDisk(t)
	path := filepath.Join(dir, "p.pool")
	p, err := Create(path, Options{Size: testSize})
	qt.Assert(t, qt.IsNil(err))
	left, err := os.ReadDir(dir)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(left, 1))
	qt.Assert(t, qt.StringContains(p.Backing().Durability(), "survives the process and the machine"))

	var f [2]uint32
	p.Alloc(f[:])
	copy(p.Frame(f[0])[100:], "received here")
	copy(p.Frame(f[1]), "nobody asked for this to be kept")
	_, err = p.Log().AppendHeader([]byte("head"), []Fragment{{f[0], 100, 13}}, true)
	qt.Assert(t, qt.IsNil(err))
	_, err = p.Log().AppendCopy(bytes.Repeat([]byte("copied "), 1000))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(p.Log().Commit()))

	b, err := os.ReadFile(path)
	qt.Assert(t, qt.IsNil(err))
	if p.Backing().Staged() {
		qt.Assert(t, qt.StringContains(string(b), "received here"))
		qt.Assert(t, qt.Not(qt.StringContains(string(b), "nobody asked")))
	}
	_, err = Open(path, Options{})
	qt.Assert(t, qt.ErrorIs(err, ErrLocked))
	r, err := Open(path, Options{ReadOnly: true})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(r.Live()))
	qt.Assert(t, qt.Equals(r.Log().Len(), 2))
	r.Close()
	qt.Assert(t, qt.IsNil(p.Close()))

	var calls int
	p, err = Open(path, Options{Progress: func(done, total uint64) { calls++ }})
	qt.Assert(t, qt.IsNil(err))
	defer p.Close()
	qt.Assert(t, qt.Not(qt.Equals(calls, 0)))
	rec, err := p.Log().Record(1)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(string(rec.Header), "head"))
	qt.Assert(t, qt.Equals(string(payloadOf(t, rec)), "received here"))
	rec, err = p.Log().Record(2)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(rec.Verify()))
	qt.Assert(t, qt.Equals(rec.Length, 7000))
	qt.Assert(t, qt.IsNil(p.SetRoot("a", Root{Value: [RootValue]byte{1}})))
}

// diskPool opens what is on a Disk as a file would be.
func diskPool(content []byte, d *pmemsim.Disk) (*Pool, error) {
	mem := bytes.Clone(content)
	return OpenMemory(mem, &fileDomain{mem: mem, file: d}, Options{})
}

func newDisk(rng *rand.Rand) ([]byte, *pmemsim.Disk, error) {
	g, err := layout(200<<10, 2048, 32)
	if err != nil {
		return nil, nil, err
	}
	mem := make([]byte, g.size)
	err = format(mem, &noDomain{mem}, superblock{version: formatVersion, geometry: g, uuid: UUID{1}, created: now()})
	return mem, pmemsim.NewDisk(mem, rng), err
}

// Power failures of a disk, with one sync per batch: what was acknowledged is
// there, and no entry without its payload.
func TestFileCrash(t *testing.T) {
	for n := range seed.From(400) {
		rng := rand.New(rand.NewPCG(n, 3))
		mem, d, err := newDisk(rng)
		qt.Assert(t, qt.IsNil(err))
		m := newCrashModel()
		for range 6 {
			d = pmemsim.NewDisk(mem, rng)
			d.CrashAfter(1 + rng.IntN(120))
			_, err := pmemsim.Run(func() error {
				mem := bytes.Clone(mem)
				return crashLife(mem, &fileDomain{mem: mem, file: d}, m, rng)
			})
			qt.Assert(t, qt.IsNil(err), qt.Commentf("seed %d", n))
			mem = d.Crash()
		}
	}
}

// One sync per batch, and an error of it is for good.
func TestSyncErrors(t *testing.T) {
	boom := &os.PathError{Op: "fdatasync", Path: "p", Err: unix.EIO}
	full := &os.PathError{Op: "write", Path: "p", Err: unix.ENOSPC}
	for name, fail := range map[string]func(*pmemsim.Disk){
		"EIO on sync":     func(d *pmemsim.Disk) { d.SyncErr = func() error { return boom } },
		"ENOSPC on write": func(d *pmemsim.Disk) { d.WriteErr = func() error { return full } },
	} {
		t.Run(name, func(t *testing.T) {
			content, d, err := newDisk(rand.New(rand.NewPCG(1, 1)))
			qt.Assert(t, qt.IsNil(err))
			p, err := diskPool(content, d)
			qt.Assert(t, qt.IsNil(err))
			syncs := d.Syncs
			for range 5 {
				_, err := p.Log().AppendCopy([]byte("kept"))
				qt.Assert(t, qt.IsNil(err))
			}
			qt.Assert(t, qt.IsNil(p.Log().Commit()))
			qt.Assert(t, qt.Equals(d.Syncs, syncs+1))

			fail(d)
			_, err = p.Log().AppendCopy([]byte("lost"))
			qt.Assert(t, qt.IsNil(err))
			err = p.Log().Commit()
			qt.Assert(t, qt.ErrorIs(err, ErrIO))
			qt.Assert(t, qt.IsTrue(errors.Is(err, unix.EIO) || errors.Is(err, unix.ENOSPC)), qt.Commentf("%v", err))
			qt.Assert(t, qt.Equals(p.Log().Committed(), 6))

			// The disk says that all is well again: too late.
			d.SyncErr, d.WriteErr = nil, nil
			qt.Assert(t, qt.ErrorIs(p.Log().Commit(), ErrIO))
			_, err = p.Log().AppendCopy([]byte("more"))
			qt.Assert(t, qt.ErrorIs(err, ErrIO))
			qt.Assert(t, qt.ErrorIs(p.Log().Truncate(1), ErrIO))
			qt.Assert(t, qt.ErrorIs(p.SetRoot("a", Root{}), ErrIO))
			_, ok := p.Root("a")
			qt.Assert(t, qt.IsFalse(ok))
			for r, err := range p.Log().Records() { // what was durable can be read
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.IsNil(r.Verify()))
			}
			q, err := diskPool(d.Crash(), d)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsTrue(q.Log().Next() >= 6), qt.Commentf("%d", q.Log().Next()))
		})
	}
}

// Those who wait for a commit share the next one.
func TestGroupCommit(t *testing.T) {
	content, d, err := newDisk(rand.New(rand.NewPCG(1, 1)))
	qt.Assert(t, qt.IsNil(err))
	p, err := diskPool(content, d)
	qt.Assert(t, qt.IsNil(err))
	inSync, goOn := make(chan bool), make(chan bool)
	d.SyncErr = func() error { inSync <- true; <-goOn; return nil }
	before := d.Syncs
	var wg sync.WaitGroup
	commit := func() {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := p.Log().Commit(); err != nil {
				t.Error(err)
			}
		}()
	}
	p.Log().AppendCopy([]byte("first"))
	commit()
	<-inSync
	for range 5 { // nobody is kept from appending meanwhile
		p.Log().AppendCopy([]byte("more"))
		commit()
	}
	qt.Assert(t, qt.Equals(p.Log().Committed(), 1))
	goOn <- true
	<-inSync
	goOn <- true
	wg.Wait()
	qt.Assert(t, qt.Equals(p.Log().Committed(), 7))
	qt.Assert(t, qt.Equals(d.Syncs, before+2))
	d.SyncErr = nil
}

// A torn record of the last batch is left out and named; after a clean end the
// same damage is damage.
func TestTornBatch(t *testing.T) {
	for _, clean := range []bool{false, true} {
		content, d, err := newDisk(rand.New(rand.NewPCG(1, 1)))
		qt.Assert(t, qt.IsNil(err))
		p, err := diskPool(content, d)
		qt.Assert(t, qt.IsNil(err))
		for i := range 3 {
			for range 2 {
				p.Log().AppendCopy([]byte(fmt.Sprint("batch ", i)))
			}
			qt.Assert(t, qt.IsNil(p.Log().Commit()))
		}
		r, err := p.Log().Record(6)
		qt.Assert(t, qt.IsNil(err))
		at := p.Offset(r.Fragments[0].Frame, 0)
		if clean {
			qt.Assert(t, qt.IsNil(p.Close()))
		}
		b := d.Crash()
		b[at] ^= 1
		q, err := diskPool(b, d)
		qt.Assert(t, qt.IsNil(err))
		rec := q.Log().Recovery()
		if clean {
			qt.Assert(t, qt.Equals(rec.Records, 6))
			last, err := q.Log().Record(6)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.ErrorIs(last.Verify(), ErrChecksum))
			continue
		}
		qt.Assert(t, qt.Equals(rec.Records, 5))
		qt.Assert(t, qt.Equals(rec.Entries, 5))
		qt.Assert(t, qt.Equals(rec.Bytes, 35))
		qt.Assert(t, qt.Equals(rec.Discarded, 1))
		qt.Assert(t, qt.StringContains(rec.Stopped, "the commit of record 6 was interrupted"))
		qt.Assert(t, qt.Equals(q.Free(), int(q.Frames()-q.FirstFrame())-5))
	}
}

// A file that is cut off while it is mapped is an error of what reads it.
func TestTruncatedWhileMapped(t *testing.T) {
	path, p := newFile(t, Options{})
	p.Log().AppendCopy([]byte("payload"))
	qt.Assert(t, qt.IsNil(p.Log().Commit()))
	qt.Assert(t, qt.IsNil(os.Truncate(path, 8192)))
	for _, err := range p.Log().Records() {
		qt.Assert(t, qt.ErrorIs(err, ErrTruncated))
	}
	_, err := p.Log().Record(1)
	qt.Assert(t, qt.ErrorIs(err, ErrTruncated))
	qt.Assert(t, qt.Not(qt.StringContains(err.Error(), "\n")))
}

// What is flushed, and nothing else, gets into a file on fs-DAX; a file on
// tmpfs stands in for it, which is mapped the same way.
func TestDAXDomain(t *testing.T) {
	mem, mapped := make([]byte, 200<<10), make([]byte, 200<<10)
	d := &daxDomain{mem: mem, mapped: mapped, cpu: &cpuDomain{mapped}}
	p, err := FormatMemory(mem, d, Options{LogEntries: 32})
	qt.Assert(t, qt.IsNil(err))
	p.Log().AppendCopyHeader([]byte("h"), bytes.Repeat([]byte("x"), 3000))
	qt.Assert(t, qt.IsNil(p.Log().Commit()))
	qt.Assert(t, qt.IsNil(p.SetRoot("a", Root{})))
	q, err := OpenMemory(bytes.Clone(mapped), nil, Options{})
	qt.Assert(t, qt.IsNil(err))
	r, err := q.Log().Record(1)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(r.Verify()))
	_, ok := q.Root("a")
	qt.Assert(t, qt.IsTrue(ok))
}
