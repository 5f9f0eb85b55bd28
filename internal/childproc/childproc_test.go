package childproc

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, script string) *Process {
	t.Helper()
	ns, err := netlab.Current()
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(ns.Close())) })
	p, err := Start(ns.Command(context.Background(), "sh", "-c", script))
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(p.Kill)
	return p
}

func is(want string) func([]byte) bool {
	return func(line []byte) bool { return string(line) == want }
}

func TestStop(t *testing.T) {
	p := start(t, `trap 'echo counted; echo last; exit 0' TERM; echo noise; echo ready; while :; do sleep 0.01; done`)
	qt.Assert(t, qt.IsNil(p.Await("ready", is("ready"))))
	qt.Check(t, qt.IsTrue(p.Running()))
	// Also when it stands still.
	qt.Assert(t, qt.IsNil(p.Signal(unix.SIGSTOP)))
	qt.Assert(t, qt.IsNil(p.Stop()))
	var rest []string
	for line := range p.Lines() {
		rest = append(rest, string(line))
	}
	qt.Check(t, qt.DeepEquals(rest, []string{"counted", "last"}))
	qt.Check(t, qt.IsFalse(p.Running()))
	qt.Check(t, qt.ErrorIs(p.Signal(unix.SIGTERM), os.ErrProcessDone))
	p.Kill() // once more is no harm
	(*Process)(nil).Kill()
}

func TestWhatItSaidIsInTheError(t *testing.T) {
	p := start(t, `echo "no such   pool" >&2; exit 3`)
	err := p.Await("ready", is("ready"))
	qt.Assert(t, qt.ErrorMatches(err, `the server ended before it was ready: exit status 3; it said: no such pool`))

	p = start(t, `trap 'echo lost >&2; exit 4' TERM; echo ready; while :; do sleep 0.01; done`)
	qt.Assert(t, qt.IsNil(p.Await("ready", is("ready"))))
	qt.Assert(t, qt.ErrorMatches(p.Stop(), `the server failed: exit status 4; it said: lost`))
}

// A child that nobody listens to does not stand still, and what it said last is
// there.
func TestUnreadOutput(t *testing.T) {
	p := start(t, `i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; printf end`)
	<-p.Exited()
	var lines []string
	for line := range p.Lines() {
		lines = append(lines, string(line))
	}
	qt.Assert(t, qt.HasLen(lines, queued))
	qt.Check(t, qt.Equals(lines[queued-1], "end"))
	qt.Check(t, qt.Equals(lines[queued-2], "line 19999"))
}

func TestLinesAreBounded(t *testing.T) {
	w := lineWriter{lines: make(chan []byte, queued)}
	fmt.Fprint(&w, strings.Repeat("x", maxLine-1))
	fmt.Fprint(&w, "yz\n\nnext\n")
	qt.Check(t, qt.Equals(len(<-w.lines), maxLine))
	qt.Check(t, qt.Equals(string(<-w.lines), ""))
	qt.Check(t, qt.Equals(string(<-w.lines), "next"))
}

func TestNoSuchProgram(t *testing.T) {
	ns, err := netlab.Current()
	qt.Assert(t, qt.IsNil(err))
	defer ns.Close()
	_, err = Start(ns.Command(context.Background(), "/no/such/program"))
	qt.Check(t, qt.ErrorIs(err, os.ErrNotExist))
}
