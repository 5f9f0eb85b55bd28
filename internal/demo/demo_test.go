package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"go.uber.org/goleak"
)

var exe string // pastectl

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "paste-demo-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	exe = filepath.Join(dir, "pastectl")
	out, err := exec.Command("go", "build", "-o", exe, "github.com/pastenet/paste/cmd/pastectl").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "build pastectl: %v\n%s", err, out)
		os.RemoveAll(dir)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// leftovers lists what a demonstration of this process has not removed.
func leftovers(t *testing.T) []string {
	t.Helper()
	pid := strconv.Itoa(os.Getpid())
	left, err := filepath.Glob("/run/netns/paste-demo*-" + pid)
	qt.Assert(t, qt.IsNil(err))
	if _, err := os.Stat("/dev/shm/" + dirPrefix + pid); err == nil {
		left = append(left, "pool")
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	qt.Assert(t, qt.IsNil(err))
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "/paste-demo") && strings.Contains(line, "-"+pid+" ") {
			left = append(left, line)
		}
	}
	exes, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range exes {
		if target, err := os.Readlink(link); err == nil && target == exe {
			left = append(left, link)
		}
	}
	return left
}

func TestEveryAcknowledgedWriteIsFound(t *testing.T) {
	var out bytes.Buffer
	lines := 0
	sum, err := Run(t.Context(), Config{Out: &out, Exe: exe, Connections: 20,
		LoadTime: 300 * time.Millisecond, BenchTime: 150 * time.Millisecond,
		Live: func(line string) {
			if line != "" {
				lines++
			}
		}})
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", &out))
	qt.Check(t, qt.IsTrue(sum.BeforeKill > 0), qt.Commentf("%v", sum.BeforeKill))
	qt.Check(t, qt.IsTrue(sum.AfterRestart > 0), qt.Commentf("%v", sum.AfterRestart))
	qt.Check(t, qt.Equals(sum.Acknowledged, sum.BeforeKill+sum.AfterRestart))
	qt.Check(t, qt.Equals(sum.Found, sum.Acknowledged))
	qt.Check(t, qt.Equals(sum.Damaged, 0))
	qt.Check(t, qt.Equals(sum.Refused, 0))
	// One request is outstanding on a connection, when the kill and the end come.
	qt.Check(t, qt.IsTrue(sum.Unacknowledged <= 2*20), qt.Commentf("%v", sum.Unacknowledged))
	qt.Check(t, qt.IsTrue(sum.InPlaceBytes > sum.CopiedBytes), qt.Commentf("%v, %v", sum.InPlaceBytes, sum.CopiedBytes))
	qt.Check(t, qt.IsTrue(lines > 0), qt.Commentf("%v", lines))
	qt.Check(t, qt.Equals(sum.Default.SteeredBytes, 0))
	qt.Check(t, qt.IsTrue(sum.Default.CopiedBytes+sum.Default.ReadBytes >= uploadBytes), qt.Commentf("%+v", sum.Default))
	for line := range strings.Lines(out.String()) {
		qt.Check(t, qt.IsTrue(len([]rune(strings.TrimRight(line, "\n"))) <= width), qt.Commentf("%s", line))
	}
	if twoCPUs() != nil {
		qt.Assert(t, qt.IsNotNil(sum.Throughput))
		qt.Check(t, qt.IsTrue(sum.Throughput.Paste > 0 && sum.Throughput.Epoll > 0 && sum.Throughput.Steered > 0), qt.Commentf("%v, %v", sum.Throughput.Paste, sum.Throughput.Epoll))
	}
	qt.Check(t, qt.HasLen(leftovers(t), 0))
}

// TestInterrupt ends the demonstration at each of its stages.
func TestInterrupt(t *testing.T) {
	for _, stage := range []string{"== A server", "== curl", "kill -9 ", "== What is in the log", "== The other way", "== The same work"} {
		t.Run(strings.TrimLeft(stage, "= "), func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			out := &trigger{word: stage, hit: cancel}
			_, err := Run(ctx, Config{Out: out, Exe: exe, Connections: 5, LoadTime: 100 * time.Millisecond, BenchTime: 100 * time.Millisecond})
			qt.Check(t, qt.IsTrue(errors.Is(err, context.Canceled)), qt.Commentf("%v", err))
			qt.Check(t, qt.HasLen(leftovers(t), 0))
		})
	}
}

// trigger calls hit when something with word in it is written.
type trigger struct {
	word string
	hit  func()
}

func (w *trigger) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(w.word)) {
		w.hit()
	}
	return len(p), nil
}

// TestSweep lets a demonstration find what a killed one left.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	dead := exec.Command("true")
	qt.Assert(t, qt.IsNil(dead.Run()))
	gone := filepath.Join(dir, dirPrefix+strconv.Itoa(dead.Process.Pid))
	kept := filepath.Join(dir, dirPrefix+strconv.Itoa(os.Getppid()))
	for _, d := range []string{gone, kept} {
		qt.Assert(t, qt.IsNil(os.Mkdir(d, 0o700)))
	}
	(&demo{Config: Config{Dir: dir}}).sweep()
	_, err := os.Stat(gone)
	qt.Check(t, qt.ErrorIs(err, os.ErrNotExist))
	_, err = os.Stat(kept)
	qt.Check(t, qt.IsNil(err))
}
