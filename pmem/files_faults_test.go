package pmem

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/pmemsim"
	"golang.org/x/sys/unix"
)

// TestFaults lets every system call in turn fail that changes a file or makes
// it durable.
func TestFaults(t *testing.T) {
	needDisk(t)
	archive, err := smallArchive()
	qt.Assert(t, qt.IsNil(err))
	over := smallOptions
	over.Overwrite = true
	for _, op := range []struct {
		name   string
		before func(path string) error
		run    func(path string) (*Pool, error)
		result string // first record afterwards
	}{
		{"create", nil, func(path string) (*Pool, error) { return Create(path, smallOptions) }, ""},
		{"overwrite", oldFile, func(path string) (*Pool, error) { return Create(path, over) }, ""},
		{"restore", nil, func(path string) (*Pool, error) { return Restore(bytes.NewReader(archive), path, smallOptions) }, "record"},
		{"restore over", oldFile, func(path string) (*Pool, error) { return Restore(bytes.NewReader(archive), path, over) }, "record"},
		{"grow", oldFile, func(path string) (*Pool, error) { return nil, Grow(path, 400<<10) }, "old"},
		{"work", oldFile, func(path string) (*Pool, error) { return nil, workInFile(path) }, "old"},
	} {
		var calls []string
		for n := 0; n <= len(calls); n++ { // the first run counts
			for _, errno := range []error{unix.EIO, unix.ENOSPC} {
				comment := qt.Commentf("%s: call %d of %q fails: %v", op.name, n, calls, errno)
				rng := rand.New(rand.NewPCG(uint64(n), 11))
				err := onFiles(rng, nil, op.before, func(fs *pmemsim.FS, path string) error {
					if n > 0 {
						fs.FailAfter(n, errno)
					}
					p, err := op.run(path)
					if n == 0 {
						calls = slices.Clone(fs.Calls())
					}
					if p != nil {
						p.Close()
					}
					if n == 0 {
						return err
					}
					want := op.result
					switch call := calls[n-1]; call {
					case "fadvise", "remove": // neither is needed
						qt.Check(t, qt.IsNil(err), comment)
					default:
						qt.Check(t, qt.ErrorIs(err, errno), comment)
						qt.Check(t, qt.ErrorMatches(err, `(?s).*`+call+" "+filepath.Dir(path)+`.*`), comment)
						qt.Check(t, qt.HasLen(others(path), 0), comment)
						want = "old"
					}
					for range 2 { // before and after a power failure
						got, err := firstRecord(path)
						if op.before == nil && want == "old" {
							qt.Check(t, qt.ErrorIs(err, os.ErrNotExist), comment)
						} else {
							qt.Check(t, qt.IsNil(err), comment)
							qt.Check(t, qt.Equals(got, want), comment)
						}
						if err := fs.Restart(true); err != nil {
							return err
						}
					}
					return nil
				})
				qt.Assert(t, qt.IsNil(err), comment)
			}
		}
		t.Logf("%s: each of %d calls: %s", op.name, len(calls), strings.Join(calls, " "))
	}
}

// workInFile does everything to a pool that makes something durable. After the
// first error nothing more may succeed, or be there.
func workInFile(path string) error {
	p, err := Open(path, Options{})
	if err != nil {
		return err
	}
	var failed error
	for i, do := range []func() error{
		func() error { p.Log().AppendCopy([]byte("new")); return p.Log().Commit() },
		func() error { return p.SetRoot("a", Root{}) },
		func() error { return p.Persist(p.Offset(p.FirstFrame(), 0), 1) },
	} {
		switch err := do(); {
		case failed == nil:
			failed = err
		case err == nil:
			return fmt.Errorf("step %d succeeds after %v", i, failed)
		}
	}
	return errors.Join(failed, p.Close())
}

// TestCreateAfterCrash: what a crashed Create left under a temporary name, by a
// process of the same number, as in a container that starts again, is not in the
// way of the next.
func TestCreateAfterCrash(t *testing.T) {
	for _, o := range []Options{smallOptions, {Size: smallOptions.Size, LogEntries: smallOptions.LogEntries, Overwrite: true}} {
		path := filepath.Join(t.TempDir(), "p")
		if o.Overwrite {
			qt.Assert(t, qt.IsNil(oldFile(path)))
		}
		left := fmt.Sprintf("%s.new-%d", path, os.Getpid())
		qt.Assert(t, qt.IsNil(os.WriteFile(left, nil, 0o600)))
		p, err := Create(path, o)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(p.Close()))
		record, err := firstRecord(path)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(record, ""))
	}
}
