package tests

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/bench"
	"github.com/pastenet/paste/internal/benchkv"
	"github.com/pastenet/paste/internal/lab"
)

// All key-value servers are started, filled, and measured side by side. The
// figures mean nothing in so short a time.
func TestBenchKV(t *testing.T) {
	l := newLab(t, lab.Config{}) // only to run in; bench makes its own
	names := benchkv.Names()
	args := []string{"bench", "kv", "--connections", "4", "--size", "100", "--keys", "300", "--rounds", "1",
		"--duration", "1s", "--warmup", "100ms", "--pool-size", "32MiB", "--json"}
	if _, err := exec.LookPath("redis-server"); err != nil {
		_, stderr, err := ctl(l, args...)
		qt.Assert(t, qt.IsNotNil(err))
		qt.Check(t, qt.StringContains(stderr, benchkv.ErrNoRedis.Error()))
		names = strings.Split(strings.Replace(strings.Join(names, " "), benchkv.Redis+" ", "", 1), " ")
	}
	stdout, stderr, err := ctl(l, append(args, "--contenders", strings.Join(names, ","))...)
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", stderr))

	var r bench.Report
	d := json.NewDecoder(strings.NewReader(stdout))
	d.DisallowUnknownFields()
	qt.Assert(t, qt.IsNil(d.Decode(&r)), qt.Commentf("%s", stdout))
	qt.Check(t, qt.Equals(r.Workload, "kv"))
	qt.Check(t, qt.Equals(r.Connections, 4))
	qt.Check(t, qt.Equals(r.Size, 100))
	qt.Assert(t, qt.HasLen(r.Contenders, len(names)))
	for i, c := range r.Contenders {
		comment := qt.Commentf("%+v", c)
		qt.Check(t, qt.Equals(c.Name, names[i]))
		qt.Check(t, qt.IsTrue(c.RPS.Min > 0 && c.RPS.Min <= c.RPS.Median && c.RPS.Median <= c.RPS.Max), comment)
		qt.Check(t, qt.IsTrue(c.Latency.P50 > 0 && c.Latency.P50 <= c.Latency.P99 && c.Latency.P99 <= c.Latency.P999), comment)
		qt.Check(t, qt.Equals(c.Errors, 0), comment)
		qt.Check(t, qt.Equals(c.Non2xx, 0), comment)
		if c.Name != bench.Paste {
			qt.Check(t, qt.IsTrue(r.Ratios[c.Name] > 0), comment)
		}
	}
	qt.Check(t, qt.HasLen(r.Ratios, len(names)-1))
	var keys map[string]any
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(stdout), &keys)))
	for _, key := range []string{"workload", "connections", "size", "contenders", "ratios"} {
		qt.Check(t, qt.IsNotNil(keys[key]), qt.Commentf("%s", key))
	}
}
