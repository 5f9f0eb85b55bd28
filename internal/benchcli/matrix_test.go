package benchcli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/bench"
)

func TestPickCells(t *testing.T) {
	all, err := pickCells("")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(all, len(bench.Matrix())))
	some, err := pickCells("^sink-1024-")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(some, 1))
	qt.Check(t, qt.Equals(some[0].Size, 1024))
	_, err = pickCells("no such cell")
	qt.Check(t, qt.ErrorMatches(err, `--cells "no such cell": matches none of .*"wal-1024-1".*`))
	_, err = pickCells("(")
	qt.Check(t, qt.ErrorMatches(err, "--cells: .*"))
}

// What was measured is gone on with only if that was asked for.
func TestBegin(t *testing.T) {
	m := &matrix{dir: filepath.Join(t.TempDir(), "new")}
	r, err := m.begin()
	qt.Assert(t, qt.IsNil(err))
	r.Cells = []bench.CellReport{{Cell: bench.Matrix()[0], Error: "x"}}
	qt.Assert(t, qt.IsNil(r.Write(m.file("json"))))
	_, err = m.begin()
	qt.Check(t, qt.ErrorMatches(err, ".*matrix.json has the results of a run: .*--resume.*"))
	m.resume = true
	r, err = m.begin()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(r.Cells, 1))
	_, err = (&matrix{resume: true}).begin()
	qt.Check(t, qt.ErrorMatches(err, "--resume: there is no --out .*"))
}

// pastebench is the one that is named, in PATH, or made from the checkout; where there
// is none, the error says how to get it.
func TestFindPastebench(t *testing.T) {
	find := func(path string) (string, error) {
		var out bytes.Buffer
		found, release, err := findPastebench(context.Background(), path, &out)
		release()
		return found, err
	}
	_, err := find(noPastebench)
	qt.Check(t, qt.ErrorMatches(err, "--pastebench none: .*"))
	_, err = find("/no/such")
	qt.Check(t, qt.ErrorMatches(err, "--pastebench: .*"))

	dir := t.TempDir()
	qt.Check(t, qt.Not(qt.Equals(checkout(), "")))
	t.Chdir(dir)
	t.Setenv("PATH", dir)
	qt.Check(t, qt.Equals(checkout(), ""))
	_, err = find("")
	qt.Check(t, qt.ErrorIs(err, errNoPastebench))
	exe := filepath.Join(dir, "pastebench")
	qt.Assert(t, qt.IsNil(os.WriteFile(exe, []byte("#!/bin/sh\n"), 0o755)))
	for _, path := range []string{"", "./pastebench"} {
		found, err := find(path)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(found, exe))
	}
}
