package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/bench/kv"
	"github.com/pastenet/paste/internal/bench"
	"go.uber.org/goleak"
)

var pastectl string // the program that is measured

// The test binary plays the contenders, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == kv.ServerCommand || os.Args[1] == "bench") {
		os.Exit(run(os.Args[1:], streams{os.Stdout, os.Stderr}))
	}
	dir, err := os.MkdirTemp("", "paste-bench-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	pastectl = filepath.Join(dir, "pastectl")
	if out, err := exec.Command("go", "-C", "../../..", "build", "-o", pastectl, "./cmd/pastectl").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build pastectl: %v\n%s", err, out)
		os.RemoveAll(dir)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent(), goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

func runBench(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(args, streams{&out, &errs})
	return code, out.String(), errs.String()
}

// All key-value servers are started, filled, and measured side by side. The
// figures mean nothing in so short a time.
func TestKV(t *testing.T) {
	names := kv.Names()
	args := []string{"kv", "--connections", "4", "--size", "100", "--keys", "300", "--rounds", "1", "--duration", "1s",
		"--warmup", "100ms", "--pool-size", "32MiB", "--pastectl", pastectl, "--json"}
	if _, err := exec.LookPath("redis-server"); err != nil {
		code, _, stderr := runBench(args...)
		qt.Assert(t, qt.Equals(code, exitError))
		qt.Check(t, qt.StringContains(stderr, kv.ErrNoRedis.Error()))
		names = slices.DeleteFunc(names, func(n string) bool { return n == kv.Redis })
	}
	code, stdout, stderr := runBench(append(args, "--contenders", strings.Join(names, ","))...)
	qt.Assert(t, qt.Equals(code, 0), qt.Commentf("%s", stderr))

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

func TestGnetTakesPart(t *testing.T) {
	for _, workload := range []string{"wal", "rpc"} {
		code, stdout, stderr := runBench(workload, "--connections", "4", "--rounds", "1", "--duration", "300ms", "--warmup", "50ms",
			"--contenders", "paste-copy,gnet", "--pastectl", pastectl, "--json")
		qt.Assert(t, qt.Equals(code, 0), qt.Commentf("%s", stderr))
		var r bench.Report
		qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(stdout), &r)))
		qt.Assert(t, qt.HasLen(r.Contenders, 2))
		c := r.Contenders[1]
		qt.Check(t, qt.Equals(c.Name, "gnet"))
		qt.Check(t, qt.IsTrue(c.RPS.Median > 0), qt.Commentf("%+v", c))
		qt.Check(t, qt.Equals(c.Errors+c.Non2xx, 0))
	}
}

func TestMistakesAreNamed(t *testing.T) {
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"no"}, exitUsage, "unknown command \"no\"; see `pastebench --help`\n"},
		{[]string{"matrix", "--cells", "none", "--pastectl", pastectl}, exitError, `"none": matches none of`},
		{[]string{"kv", "a"}, exitUsage, "unexpected argument \"a\"; see `pastebench kv --help`\n"},
		{[]string{"kv", "--size", "x"}, exitUsage, "want a number of bytes"},
		{[]string{"kv", "--put", "101"}, exitUsage, "want --keys of 1 or more"},
		{[]string{"kv", "--pastectl", "/no/such"}, exitError, "name it by --pastectl"},
		{[]string{"kv", "--pastectl", pastectl, "--contenders", "x"}, exitError, `unknown contender "x"`},
	} {
		code, _, stderr := runBench(tc.args...)
		qt.Check(t, qt.Equals(code, tc.code), qt.Commentf("%v", tc.args))
		qt.Check(t, qt.StringContains(stderr, tc.want))
	}
	code, stdout, _ := runBench()
	qt.Check(t, qt.Equals(code, 0))
	qt.Check(t, qt.StringContains(stdout, "pastebench"))
}
