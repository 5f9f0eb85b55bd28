package benchcli

import (
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
