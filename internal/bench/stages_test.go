package bench

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// Every stage of every way is seen, by its name.
func TestStages(t *testing.T) {
	cfg := testConfig(t)
	cfg.Rounds, cfg.Duration = 1, 500*time.Millisecond
	r, err := RunStages(context.Background(), cfg)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(r.Scenarios, len(scenarios)))
	for i := range r.Scenarios {
		s := &r.Scenarios[i]
		for _, stage := range stageNames {
			if s.has(stage) {
				qt.Check(t, qt.IsTrue(s.Stages[stage] > 0), qt.Commentf("%s: %s: %v", s.Name, stage, s.Stages))
			}
		}
		qt.Check(t, qt.IsTrue(s.Sum > 0 && s.Core > 0 && s.Segments > 0), qt.Commentf("%+v", s))
	}
	qt.Check(t, qt.HasLen(r.Computed, 2))
	var b strings.Builder
	qt.Assert(t, qt.IsNil(r.WriteTable(&b)))
	qt.Check(t, qt.StringContains(b.String(), "parse+ticket"))
	qt.Check(t, qt.Equals(strings.Count(b.String(), "computed, not measured"), 2))
}

func TestStageOf(t *testing.T) {
	for function, want := range map[string]string{
		"bpf_prog_0123456789abcdef_paste_verdict": stageVerdict,
		"bpf_prog_0123456789abcdef_paste_tag":     stageTagger,
		"bpf_prog_0123456789abcdef_paste_ingress": stageTagger,
		"bpf_prog_0123456789abcdef_paste_steer":   stageXDP,
		"bpf_prog_0123456789abcdef_other":         "",
		"bpf_prog_0123456789abcdef":               "",
		"tcp_v4_rcv":                              stageTCP,
		"schedule":                                "",
	} {
		qt.Check(t, qt.Equals(stageOf(function), want), qt.Commentf("%s", function))
	}
}

// What is computed leaves out what only a veth does.
func TestComputed(t *testing.T) {
	r := &StagesReport{Scenarios: []StagesOfAWay{
		{Name: "steered, x", SegmentBytes: mss, Stages: map[string]float64{stageDriver: 500, stageXsk: 300, stageTCP: 1000}, Sum: 1800},
		{Name: "read, x", SegmentBytes: mss, Stages: map[string]float64{stageTCP: 1000}, Sum: 1000}}}
	r.compute()
	qt.Assert(t, qt.HasLen(r.Computed, 1))
	b := r.Computed["steered, x"]
	qt.Check(t, qt.Equals(b.Ns, 1000))
	qt.Check(t, qt.Equals(b.Segments, 1e6))
	qt.Check(t, qt.Equals(b.Gbits, mss*8/1e3))
	qt.Check(t, qt.IsTrue(b.Cores > 2.03 && b.Cores < 2.04), qt.Commentf("%v", b.Cores)) // 25 Gbit/s / (1538 B * 8)
}
