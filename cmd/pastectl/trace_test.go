package main

import (
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/netlab/netlabtest"
)

func TestTraceRefuses(t *testing.T) {
	for want, args := range map[string][]string{
		"--peer":            {"--peer", "nobody"},
		"--conn":            {"--conn", "10.0.0.2"},
		"--snaplen":         {"--snaplen", "65537"},
		"--count":           {"--count", "0"},
		"--pid must":        {"--pid", "0"},
		"--port must":       {"--port", "0"},
		"--pid and --nic":   {"--pid", "1", "--nic", "x"},
		"nothing for --jso": {"--json", "-w", "x"},
	} {
		code, stdout, stderr := pastectl(append([]string{"trace"}, args...)...)
		qt.Check(t, qt.Equals(code, exitUsage))
		qt.Check(t, qt.Equals(stdout, ""))
		assertSentence(t, stderr)
		qt.Check(t, qt.StringContains(stderr, want))
	}
}

func TestTraceOfNothing(t *testing.T) {
	netlabtest.Enter(t, netlabtest.NewNetns(t))
	code, stdout, stderr := pastectl("trace")
	qt.Check(t, qt.Equals(code, exitError))
	qt.Check(t, qt.Equals(stdout, ""))
	qt.Check(t, qt.Equals(stderr, "pastectl: trace: no process with an open port in this network namespace\n"))
	code, _, stderr = pastectl("trace", "--nic", "nosuchnic0")
	qt.Check(t, qt.Equals(code, exitError))
	assertSentence(t, stderr)
}
