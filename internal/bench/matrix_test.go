package bench

import (
	"context"
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/loadgen"
)

// Cells follow each other, a share is that of epoll's rate before, one that fails keeps
// no other from being measured, and what was measured is not measured again.
func TestRunMatrix(t *testing.T) {
	cfg := testConfig(t)
	cfg.Rounds, cfg.Duration, cfg.Contenders = 1, 200*time.Millisecond, []string{Paste, toEpoll}
	echo := Cell{Workload: loadgen.Echo, Size: 100, Connections: 4}
	half, bad, lone := echo, echo, echo
	half.Share = 0.5
	bad.Size = 2 << 20
	lone.Connections, lone.Share = 5, 0.5
	var told []string
	saved := 0
	run := MatrixRun{Config: cfg, Cells: []Cell{bad, echo, lone, half},
		Each: func(_ int, c Cell) { told = append(told, c.String()) },
		Done: func(*MatrixReport) error { saved++; return nil }}
	var m MatrixReport
	err := RunMatrix(context.Background(), run, &m)
	qt.Check(t, qt.ErrorMatches(err, "(?s)cell echo-2097152-4: .*1 MiB.*cell echo-100-5-50%: epoll's rate in echo-100-5 is not known: .*"))
	qt.Check(t, qt.DeepEquals(told, []string{"echo-2097152-4", "echo-100-4", "echo-100-5-50%", "echo-100-4-50%"}))
	qt.Check(t, qt.Equals(saved, 4))
	qt.Assert(t, qt.HasLen(m.Cells, 4))
	qt.Check(t, qt.Equals(m.find("echo-100-4-50%").Report.Rate, m.find("echo-100-4").Report.Contenders[1].RPS.Median/2))
	qt.Check(t, qt.Not(qt.Equals(m.Machine.Kernel, "")))

	told = nil
	err = RunMatrix(context.Background(), run, &m)
	qt.Check(t, qt.ErrorMatches(err, "(?s)cell echo-2097152-4: .*cell echo-100-5-50%: .*"))
	qt.Check(t, qt.DeepEquals(told, []string{"echo-2097152-4", "echo-100-5-50%"}))
	qt.Check(t, qt.HasLen(m.Cells, 4))

	full := errors.New("disk is full")
	run.Done = func(*MatrixReport) error { return full }
	qt.Check(t, qt.ErrorIs(RunMatrix(context.Background(), run, &m), full))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	qt.Check(t, qt.ErrorIs(RunMatrix(ctx, run, new(MatrixReport)), context.Canceled))
}

// made is a report with ratios in three rounds around those given.
func made(paste, cpu float64, client float64) *Report {
	r := new(Report)
	for _, k := range []struct {
		name      string
		rate, cpu float64
	}{{Paste, paste, cpu}, {PasteNoSpin, 1, cpu / 2}, {toEpoll, 1, 1}} {
		c := ContenderReport{Name: k.name, RPS: Spread{Median: 1000 * k.rate}, ServerCPU: k.cpu, ClientBusy: client}
		for _, f := range []float64{0.5, 1, 1.1, 2} {
			round := Round{f, f}
			if k.name != toEpoll {
				round = Round{f * k.rate, f * k.cpu}
			}
			c.PerRound = append(c.PerRound, round)
		}
		r.Contenders = append(r.Contenders, c)
	}
	return r
}

func TestWriteMarkdown(t *testing.T) {
	wal := Cell{Workload: loadgen.WAL, Size: 1024, Connections: 100, Bars: []Bar{rate(toEpoll, 1.1, 1.3), rate(toGnet, 1.2, 0)}}
	low, offered := wal, Cell{Workload: loadgen.WAL, Size: 64, Connections: 7, Share: 0.6, Wire: true, Bars: []Bar{{Paste, toEpoll, CPU, 0.95, 0.8}}}
	low.Connections, low.Bars = 9, wal.Bars[:1]
	m := MatrixReport{Absent: map[string]string{toGnet: "it is not here"}, Cells: []CellReport{
		{Cell: wal, Report: made(1.3, 1, 0.5)}, {Cell: low, Report: made(1, 1, 0.95)}, {Cell: offered, Report: made(1, 0.9, 0.95)}, {Cell: low, Error: "no luck"}}}
	var b strings.Builder
	qt.Assert(t, qt.IsNil(m.WriteMarkdown(&b)))
	squeezed := regexp.MustCompile(" +").ReplaceAllString(b.String(), " ")
	lines := strings.Split(squeezed, "\n")[4:]
	for i, want := range []string{
		"| wal 1 KiB, 100 | paste | epoll | 1.30 (1.30–1.30) | 1.00 (1.00–1.00) | 0.50 (0.50–0.50) | ≥ 1.10 | ≥ 1.30 | reached, and the aim |",
		"| wal 1 KiB, 100 | paste | gnet | | | | ≥ 1.20 | | not measured: it is not here |",
		"| wal 1 KiB, 9 | paste | epoll | 1.00 (1.00–1.00) | 1.00 (1.00–1.00) | 0.50 (0.50–0.50) | ≥ 1.10 | ≥ 1.30 | **missed**; the generator limits paste and epoll |",
		"| wal 64 B, 7, 60 % of epoll's rate, wire | paste | epoll | 1.00 (1.00–1.00) | 0.90 (0.90–0.90) | 0.45 (0.45–0.45) | ≤ 0.95 CPU | ≤ 0.80 CPU | reached |",
		"| wal 1 KiB, 9 | paste | epoll | | | | ≥ 1.10 | ≥ 1.30 | failed: no luck |",
	} {
		qt.Check(t, qt.Equals(lines[i], want))
	}
	qt.Check(t, qt.DeepEquals(m.Missed(), []string{"wal-1024-9 paste/epoll"}))
	shown := m.Lines()
	qt.Assert(t, qt.HasLen(shown, 3))
	qt.Check(t, qt.Equals(shown[2].Title, "wal 64 B, 7, 60 % of epoll's rate, wire: paste / epoll, CPU"))
}

// A ratio is of the same round: the middle half of them says how sure it is.
func TestCompare(t *testing.T) {
	r := &Report{Contenders: []ContenderReport{
		{Name: "a", PerRound: []Round{{10, 1}, {20, 1}, {30, 1}, {80, 1}}}, {Name: "b", PerRound: []Round{{10, 2}, {10, 2}, {10, 0}, {10, 2}}}}}
	got, ok := r.Compare("a", "b", Rate)
	qt.Check(t, qt.IsTrue(ok))
	qt.Check(t, qt.Equals(got, Ratio{Median: 2.5, Low: 2, High: 3}))
	got, ok = r.Compare("a", "b", CPU)
	qt.Check(t, qt.IsTrue(ok))
	qt.Check(t, qt.Equals(got.Median, 0.5))
	_, ok = r.Compare("a", "c", Rate)
	qt.Check(t, qt.IsFalse(ok))
}

// A matrix comes back from its file as it was written.
func TestMatrixFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.json")
	m, err := ReadMatrix(path)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(m.Cells, 0))
	c := Matrix()[0]
	c.also = nil
	m.put(CellReport{Cell: c, Report: made(1, 1, 0.5)})
	qt.Assert(t, qt.IsNil(m.Write(path)))
	again, err := ReadMatrix(path)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(again.Cells[0].Bars, m.Cells[0].Bars))
	qt.Check(t, qt.DeepEquals(again.Cells[0].Report.Contenders, m.Cells[0].Report.Contenders))
	qt.Check(t, qt.IsNotNil(m.Write(filepath.Join(path, "x"))))
}

// The table can be run as it is: no two cells are the same, a share comes after what it
// is of, and whoever a bar is about takes part.
func TestMatrix(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Matrix() {
		qt.Check(t, qt.Equals(seen[c.String()], false), qt.Commentf("%s", c))
		seen[c.String()] = true
		qt.Check(t, qt.Equals(c.Share == 0 || seen[c.closed()], true), qt.Commentf("%s", c))
		cfg := testConfig(t)
		cfg.Workload, cfg.Size, cfg.Connections, cfg.Contenders, cfg.Others = c.Workload, c.Size, c.Connections, c.contenders(), Others{}
		for _, b := range c.Bars {
			qt.Check(t, qt.SliceContains(cfg.Contenders, b.Who))
			qt.Check(t, qt.SliceContains(cfg.Contenders, b.To))
			if b.Who == toGnet || b.To == toGnet {
				cfg.Others.Kinds = append(cfg.Others.Kinds, toGnet)
			}
		}
		qt.Check(t, qt.IsNil(cfg.fill()), qt.Commentf("%s", c))
	}
	qt.Check(t, qt.IsTrue(NeedsAny(Matrix(), toGnet)))
}
