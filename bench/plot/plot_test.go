package plot

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/bench"
)

// The plot names every bar that was measured, and is the same whenever it is drawn.
func TestMatrix(t *testing.T) {
	dir := t.TempDir()
	from := filepath.Join(dir, "matrix.json")
	m := new(bench.MatrixReport)
	for _, c := range bench.Matrix()[:2] {
		r := &bench.Report{}
		for i, name := range []string{bench.Paste, bench.PasteSteered, "epoll"} {
			r.Contenders = append(r.Contenders, bench.ContenderReport{Name: name, PerRound: []bench.Round{{RPS: float64(i + 1), ServerCPU: 1}}})
		}
		m.Cells = append(m.Cells, bench.CellReport{Cell: c, Report: r})
	}
	qt.Assert(t, qt.IsNil(m.Write(from)))
	var drawn []string
	for _, name := range []string{"a.svg", "b.svg"} {
		qt.Assert(t, qt.IsNil(Matrix(from, filepath.Join(dir, name))))
		b, err := os.ReadFile(filepath.Join(dir, name))
		qt.Assert(t, qt.IsNil(err))
		drawn = append(drawn, string(b))
	}
	qt.Check(t, qt.Equals(drawn[0], drawn[1]))
	qt.Check(t, qt.StringContains(drawn[0], "wal 8 KiB, 50: paste / epoll"))
	qt.Check(t, qt.Equals(strings.Count(drawn[0], "paste-steered / epoll"), 1))

	qt.Check(t, qt.ErrorMatches(Matrix(from, filepath.Join(dir, "a.xyz")), "plot: .*xyz.*"))
	qt.Check(t, qt.ErrorMatches(Matrix(filepath.Join(dir, "none.json"), filepath.Join(dir, "a.svg")), "plot: no bar was measured"))
}

var update = flag.Bool("update", false, "draw docs/performance/matrix.svg again")

// The plot in the documentation is that of the results beside it.
func TestPlotOfThePage(t *testing.T) {
	const dir = "../../docs/performance/"
	to := filepath.Join(t.TempDir(), "matrix.svg")
	if *update {
		to = dir + "matrix.svg"
	}
	qt.Assert(t, qt.IsNil(Matrix(dir+"matrix.json", to)))
	drawn, err := os.ReadFile(to)
	qt.Assert(t, qt.IsNil(err))
	kept, err := os.ReadFile(dir + "matrix.svg")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(kept) == string(drawn), true), qt.Commentf("go -C bench test ./plot -run TestPlotOfThePage -update"))
}
