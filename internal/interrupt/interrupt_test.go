package interrupt

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/go-quicktest/qt"
)

// As a child of itself the test waits for signals.
func TestMain(m *testing.M) {
	if mode := os.Getenv("INTERRUPT_TEST"); mode != "" {
		child(mode)
	}
	os.Exit(m.Run())
}

func child(mode string) {
	if mode == "nohup" {
		signal.Ignore(syscall.SIGHUP)
	}
	ctx, _ := Context(context.Background())
	os.Stdout.WriteString("ready\n")
	<-ctx.Done()
	os.Stdout.WriteString(Cause(ctx).Error() + "\n")
	select {}
}

// run starts a child, sends it signals, each after a line of its output, and
// returns these lines and how it ended.
func run(t *testing.T, mode string, signals ...syscall.Signal) (lines []string, status syscall.WaitStatus) {
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	// Whoever runs the tests may have made them ignore SIGHUP.
	cmd := exec.Command("env", "--default-signal=HUP", self)
	cmd.Env = append(os.Environ(), "INTERRUPT_TEST="+mode)
	out, err := cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Start()))
	b := make([]byte, 100)
	for _, sig := range signals {
		n, err := out.Read(b)
		qt.Check(t, qt.IsNil(err))
		lines = append(lines, strings.TrimSpace(string(b[:n])))
		qt.Check(t, qt.IsNil(cmd.Process.Signal(sig)))
	}
	cmd.Wait()
	return lines, cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// The first signal ends the work, the second one the process.
func TestSignals(t *testing.T) {
	for first, want := range map[syscall.Signal]string{
		syscall.SIGINT: "interrupted by SIGINT", syscall.SIGTERM: "interrupted by SIGTERM", syscall.SIGHUP: "interrupted by SIGHUP",
	} {
		for _, second := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			lines, status := run(t, "plain", first, second)
			qt.Check(t, qt.DeepEquals(lines, []string{"ready", want}))
			qt.Check(t, qt.Equals(status.Signal(), second))
		}
	}
}

func TestNohup(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "INTERRUPT_TEST=nohup")
	out, err := cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Start()))
	b := make([]byte, 100)
	_, err = out.Read(b)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.IsNil(cmd.Process.Signal(syscall.SIGHUP)))
	qt.Check(t, qt.IsNil(cmd.Process.Signal(syscall.SIGTERM)))
	n, err := out.Read(b)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(b[:n]), "interrupted by SIGTERM\n"))
	qt.Check(t, qt.IsNil(cmd.Process.Kill()))
	cmd.Wait()
}

func TestWait(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	v, err := Wait(ctx, func() (int, error) { return 7, nil }, func(int) { t.Error("dropped") })
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(v, 7))
	release, dropped := make(chan struct{}), make(chan int)
	go cancel()
	_, err = Wait(ctx, func() (int, error) { <-release; return 8, nil }, func(v int) { dropped <- v })
	qt.Check(t, qt.ErrorIs(err, ErrInterrupted))
	qt.Check(t, qt.IsTrue(errors.Is(err, context.Canceled)))
	qt.Check(t, qt.Equals(err.Error(), "interrupted"))
	close(release)
	qt.Check(t, qt.Equals(<-dropped, 8))
}
