package pmem

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/pastenet/paste/internal/pmemsim"
	"golang.org/x/sys/unix"
)

// diskDir is a directory on a file system that pools are staged on, "" if there is none.
var diskDir = sync.OnceValue(func() string {
	wd, _ := os.Getwd()
	for _, dir := range []string{"/var/tmp", os.TempDir(), wd} {
		if pl, err := placeOf(filepath.Join(dir, "p")); err == nil && pl.backing == BackingFile {
			return dir
		}
	}
	return ""
})

func needDisk(t *testing.T) {
	t.Helper()
	if diskDir() == "" {
		t.Fatal("every directory here is on tmpfs or DAX, and this is about a disk: set TMPDIR to a directory on one")
	}
}

// onFiles runs f in a directory whose files are a simulation's. before, if not
// nil, prepares it.
func onFiles(rng *rand.Rand, drop func(pmemsim.Call) bool, before func(path string) error, f func(fs *pmemsim.FS, path string) error) error {
	dir, err := os.MkdirTemp(diskDir(), "pmem-test-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	real := system
	defer func() { system = real }()
	system = func(call string, f *os.File, do func() error) error {
		if call == "fdatasync" || call == "fsync" { // nobody cuts the power of these
			return nil
		}
		return do()
	}
	path := filepath.Join(dir, "p")
	if before != nil {
		if err := before(path); err != nil {
			return err
		}
	}
	fs, err := pmemsim.NewFS(dir, rng)
	if err != nil {
		return err
	}
	defer fs.Close()
	fs.Drop = drop
	system = fs.Call
	return f(fs, path)
}

var smallOptions = Options{Size: 200 << 10, LogEntries: 32}

// oldFile makes a pool with one record.
func oldFile(path string) error {
	p, err := Create(path, smallOptions)
	if err != nil {
		return err
	}
	p.Log().AppendCopy([]byte("old"))
	return errors.Join(p.Log().Commit(), p.Close())
}

// firstRecord opens a pool and tells its first record: "" if it has none.
func firstRecord(path string) (s string, err error) {
	p, err := Open(path, Options{})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	r, err := p.Log().Record(1)
	if errors.Is(err, ErrNoRecord) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	r.WriteTo(&b)
	return b.String(), r.Verify()
}

// others lists the files beside the pool.
func others(path string) (names []string) {
	entries, _ := os.ReadDir(filepath.Dir(path))
	for _, e := range entries {
		if e.Name() != filepath.Base(path) {
			names = append(names, e.Name())
		}
	}
	return names
}

// fileWorkRun is crashRun in a file. A life may also end with a sync that
// fails, and the machine may live on when the process dies.
func fileWorkRun(seed uint64, drop func(pmemsim.Call) bool) error {
	rng := rand.New(rand.NewPCG(seed, 8))
	empty := func(path string) error {
		p, err := Create(path, smallOptions)
		return errors.Join(err, p.Close())
	}
	return onFiles(rng, drop, empty, func(fs *pmemsim.FS, path string) error {
		m := newCrashModel()
		for range 6 {
			fs.CutAfter(1 + rng.IntN([]int{80, 8}[rng.IntN(2)])) // often while it is opened
			if rng.IntN(3) == 0 {
				fs.FailAfter(1+rng.IntN(40), unix.EIO)
			}
			err := fileLife(path, m, rng)
			if !fs.Cut() && !(fs.Failed() && errors.Is(err, unix.EIO)) {
				return err
			}
			if err := fs.Restart(rng.IntN(3) > 0); err != nil {
				return err
			}
		}
		return nil
	})
}

func fileLife(path string, m *crashModel, rng *rand.Rand) error {
	p, err := Open(path, Options{})
	if err != nil {
		return err
	}
	defer p.Close()
	if err := m.check(p); err != nil {
		return err
	}
	for {
		if err := m.work(p, rng); err != nil {
			return err
		}
	}
}

// killedRun kills a process that has written a commit and not synced it; the
// machine fails while the next one opens the pool, or later. What that one has
// shown is there, and what it says in the log about the commit is true.
func killedRun(seed uint64, drop func(pmemsim.Call) bool) error {
	rng := rand.New(rand.NewPCG(seed, 12))
	return onFiles(rng, drop, oldFile, func(fs *pmemsim.FS, path string) error {
		p, err := Open(path, Options{})
		if err != nil {
			return err
		}
		fs.CutAfter(2 + rng.IntN(2))
		for range 4 { // written in one piece, on several sectors
			p.Log().AppendCopy(randomPayload(rng, 2000))
		}
		p.Log().Commit()
		p.Close()
		if err := fs.Restart(false); err != nil {
			return err
		}
		fs.CutAfter([]int{4, 3 + rng.IntN(5)}[rng.IntN(2)]) // often between the first store and its sync
		shown := uint64(1)
		if p, err = Open(path, Options{}); err == nil {
			shown = p.Log().Next()
			p.Close()
		} else if !fs.Cut() {
			return err
		}
		if err := fs.Restart(true); err != nil {
			return err
		}
		if p, err = Open(path, Options{}); err != nil {
			return err
		}
		defer p.Close()
		if p.Log().Next() < shown {
			return fmt.Errorf("the log was open up to %d, and ends at %d", shown, p.Log().Next())
		}
		return nil
	})
}

// newFileRun makes a pool where there is none or another one, which stays until
// the new one is there.
func newFileRun(seed uint64, drop func(pmemsim.Call) bool) error {
	rng := rand.New(rand.NewPCG(seed, 9))
	var before func(string) error
	o, overwrite, restore, named, plain := smallOptions, seed%2 == 1, seed/2%2 == 1, seed/4%2 == 1, seed/8%2 == 1
	if overwrite {
		before, o.Overwrite = oldFile, true
	}
	archive, err := smallArchive()
	if err != nil {
		return err
	}
	return onFiles(rng, drop, before, func(fs *pmemsim.FS, path string) error {
		if named { // a file system without files that have no name
			fs.FailAfter(1, unix.EOPNOTSUPP)
		}
		fs.CutAfter(2 + rng.IntN(60))
		if plain { // one that cannot exchange names
			system = func(call string, f *os.File, do func() error) error {
				if call == "rename" && plain {
					plain = false
					return unix.EINVAL
				}
				return fs.Call(call, f, do)
			}
		}
		var p *Pool
		if restore {
			p, err = Restore(bytes.NewReader(archive), path, o)
		} else {
			p, err = Create(path, o)
		}
		finished := err == nil
		if finished {
			p.Close()
		} else if !fs.Cut() {
			return err
		}
		if err := fs.Restart(rng.IntN(4) > 0); err != nil {
			return err
		}
		want := ""
		if restore {
			want = "record"
		}
		got, err := firstRecord(path)
		switch {
		case !finished && !overwrite && errors.Is(err, os.ErrNotExist):
		case err != nil:
			return err
		case got != want && (finished || !overwrite || got != "old"):
			return fmt.Errorf("the pool holds %q, finished: %v", got, finished)
		}
		left := others(path)
		if !named && !overwrite && len(left) > 0 || len(left) > 1 || len(left) == 1 && !strings.HasPrefix(left[0], "p.new-") {
			return fmt.Errorf("left behind: %q", left)
		}
		return nil
	})
}

// growFileRun makes a pool in a file larger: it has the old or the new size.
func growFileRun(seed uint64, drop func(pmemsim.Call) bool) error {
	rng := rand.New(rand.NewPCG(seed, 10))
	return onFiles(rng, drop, oldFile, func(fs *pmemsim.FS, path string) error {
		fs.CutAfter(1 + rng.IntN(8))
		if rng.IntN(3) == 0 {
			fs.FailAfter(1+rng.IntN(8), unix.EIO)
		}
		err := Grow(path, 400<<10)
		if err != nil && !fs.Cut() && !fs.Failed() {
			return err
		}
		finished := err == nil
		for power := range 2 { // what is there is there for good
			if err := fs.Restart(power == 1 || rng.IntN(2) == 0); err != nil {
				return err
			}
			p, err := Open(path, Options{})
			if err != nil {
				return err
			}
			size := len(p.Mem())
			p.Close()
			if size != 400<<10 && (finished || size != 200<<10) {
				return fmt.Errorf("%d bytes, finished: %v", size, finished)
			}
			finished = size == 400<<10
			if got, err := firstRecord(path); err != nil || got != "old" {
				return fmt.Errorf("the pool holds %q: %v", got, err)
			}
		}
		return nil
	})
}
