package bench

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/loadgen"
)

// Cells follow each other, and a share is that of epoll's rate before.
func TestRunMatrix(t *testing.T) {
	cfg := testConfig(t)
	cfg.Rounds, cfg.Duration, cfg.Contenders = 1, 200*time.Millisecond, []string{Paste, "epoll"}
	echo := Cell{Workload: loadgen.Echo, Size: 100, Connections: 4}
	half := echo
	half.Share = 0.5
	var told []string
	done, err := RunMatrix(context.Background(), cfg, []Cell{echo, {Workload: loadgen.Sink, Size: 1000, Connections: 1}, half},
		func(n int, c Cell) { told = append(told, c.String()) })
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(told, []string{"echo-100-4", "sink-1000-1", "echo-100-4-50%"}))
	qt.Assert(t, qt.HasLen(done, 3))
	qt.Check(t, qt.Equals(done[2].Report.Rate, done[0].Report.Contenders[1].RPS.Median/2))
	var b strings.Builder
	qt.Assert(t, qt.IsNil(WriteMarkdown(&b, done)))
	qt.Check(t, qt.Equals(strings.Count(b.String(), "\n"), 5), qt.Commentf("%s", &b))

	_, err = RunMatrix(context.Background(), cfg, []Cell{half}, nil)
	qt.Check(t, qt.ErrorMatches(err, "bench: cell echo-100-4-50%: epoll's rate in echo-100-4 is not known; .*"))
}

func TestWriteMarkdown(t *testing.T) {
	report := func(rate, cpu float64) *Report {
		return &Report{Ratios: map[string]float64{"epoll": rate}, CPURatios: map[string]float64{"epoll": cpu},
			Contenders: []ContenderReport{{Name: Paste, RPS: Spread{Median: 1234}, ServerCPU: 5.5, ClientBusy: 0.95}, {Name: "epoll"}}}
	}
	wal := Cell{Workload: loadgen.WAL, Size: 1024, Connections: 100, Floor: 1.1}
	offered := Cell{Workload: loadgen.WAL, Size: 1024, Connections: 100, Share: 0.6, Floor: 0.95}
	var b strings.Builder
	qt.Assert(t, qt.IsNil(WriteMarkdown(&b, []CellReport{{wal, report(1.2, 1)}, {wal, report(1.0, 1)}, {offered, report(1, 0.9)}, {offered, report(1, 1)}})))
	for i, want := range []string{
		"| work | size | connections | paste | to epoll | floor, to epoll | |",
		"|---|---|---|---|---|---|---|",
		"| wal | 1024 | 100 | 1234/s | 1.20× | ≥ 1.10 | paste: generator 95 % busy |",
		"| wal | 1024 | 100 | 1234/s | 1.00× | ≥ 1.10 | **missed**; paste: generator 95 % busy |",
		"| wal, 60 % of epoll's rate | 1024 | 100 | 5.50 µs | 0.90× | ≤ 0.95 | paste: generator 95 % busy |",
		"| wal, 60 % of epoll's rate | 1024 | 100 | 5.50 µs | 1.00× | ≤ 0.95 | **missed**; paste: generator 95 % busy |",
	} {
		qt.Check(t, qt.Equals(strings.Split(b.String(), "\n")[i], want))
	}
}

// The table can be run as it is: no two cells are the same, and a share comes after
// what it is of.
func TestMatrix(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Matrix() {
		qt.Check(t, qt.Equals(seen[c.String()], false), qt.Commentf("%s", c))
		seen[c.String()] = true
		qt.Check(t, qt.Equals(c.Share == 0 || seen[c.closed().String()], true), qt.Commentf("%s", c))
	}
}
