package cabi

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/childproc"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/internal/seed"
	"golang.org/x/sys/unix"
)

const patience = childproc.Patience

// bin has pastectl, both libraries and the C programs.
var bin string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if bin, err = os.MkdirTemp("", "paste-cabi-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(bin)
		if err := build(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

func build() error {
	steps := [][]string{{"go", "build", "-o", bin, "../cmd/pastectl"}, {"../scripts/build-preload", bin}}
	programs, err := filepath.Glob("ctest/*.c")
	if err != nil {
		return err
	}
	for _, src := range programs {
		name := strings.TrimSuffix(filepath.Base(src), ".c")
		if name == "nm" {
			continue
		}
		steps = append(steps, []string{"gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", filepath.Join(bin, name), src, "ctest/nm.c"})
	}
	steps = append(steps, []string{"gcc", "-static", "-o", filepath.Join(bin, "static"), "ctest/echo.c", "ctest/nm.c"})
	for _, s := range steps {
		if out, err := exec.Command(s[0], s[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(s, " "), err, out)
		}
	}
	return nil
}

// underPaste is the command line that runs a C program of the tests.
func underPaste(flags []string, program string, args ...string) []string {
	line := append([]string{"run"}, flags...)
	line = append(line, "--", filepath.Join(bin, program))
	return append(line, args...)
}

// run runs a program to its end.
func run(t *testing.T, program string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "pastectl"), underPaste(nil, program, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// TestRequests: every request of NIOCCTRL, NIOCREGIF and NIOCGINFO, right and wrong.
func TestRequests(t *testing.T) {
	netlabtest.RequireRoot(t)
	told := ""
	for _, program := range []string{"requests", "ports"} {
		stdout, stderr, err := run(t, program)
		qt.Check(t, qt.IsNil(err), qt.Commentf("%s%s", stdout, stderr))
		qt.Check(t, qt.IsTrue(strings.Contains(stdout, "0 of ")), qt.Commentf("%s", stdout))
		told += stderr
	}
	// Who reads only an error number is told why.
	for _, sentence := range []string{"monitors are not here", "CSB is not here", "the kernel loop is not here", "cannot be duplicated"} {
		qt.Check(t, qt.StringContains(told, sentence))
	}
}

// echoServer starts the echo server in a lab, and returns its address.
func echoServer(t *testing.T, l *netlab.Lab, flags []string, args ...string) (*childproc.Process, string) {
	t.Helper()
	p, err := childproc.Start(l.ServerCommand(context.Background(), filepath.Join(bin, "pastectl"),
		underPaste(flags, "echo", append([]string{"0"}, args...)...)...))
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(p.Kill)
	var port string
	qt.Assert(t, qt.IsNil(p.Await("ready", func(line []byte) bool { port = string(line); return true })))
	return p, net.JoinHostPort(l.ServerIP4.String(), port)
}

// talk sends n bytes in pieces, half-closes, and expects them back.
func talk(l *netlab.Lab, addr string, rng *rand.Rand, n int) error {
	var c *net.TCPConn
	err := l.InClient(func() error {
		d := net.Dialer{Timeout: patience}
		conn, err := d.Dial("tcp", addr)
		if err == nil {
			c = conn.(*net.TCPConn)
		}
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	sent := make([]byte, n)
	for i := range sent {
		sent[i] = byte(rng.Uint32())
	}
	failed := make(chan error, 1)
	go func() {
		for rest := sent; len(rest) > 0; {
			k := min(1+rng.IntN(5000), len(rest))
			if _, err := c.Write(rest[:k]); err != nil {
				failed <- err
				return
			}
			rest = rest[k:]
		}
		failed <- c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, sent) {
		return fmt.Errorf("%d bytes came back of %d, or others", len(got), n)
	}
	return <-failed
}

// talkAll has several clients talk at once.
func talkAll(t *testing.T, l *netlab.Lab, addr string) {
	t.Helper()
	rng := seed.New(t)
	var wg sync.WaitGroup
	for i := range 20 {
		mine := rand.New(rand.NewPCG(rng.Uint64(), 0))
		wg.Add(1)
		go func() {
			defer wg.Done()
			qt.Check(t, qt.IsNil(talk(l, addr, mine, 1+i*20_000)))
		}()
	}
	wg.Wait()
}

// end stops a server by a signal, which must reach its own handler. Should it come
// just before the server waits, another one ends the wait.
func end(t *testing.T, p *childproc.Process, sig unix.Signal) {
	t.Helper()
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		_ = unix.Kill(p.PID(), sig) // it may be gone
		select {
		case <-p.Exited():
			qt.Check(t, qt.StringContains(fmt.Sprint(p.Explain(io.EOF)), fmt.Sprintf("ended by signal %d", int(sig))))
			return
		case <-again.C:
		}
	}
	t.Fatal("the server did not end")
}

// TestEcho: a server of PASTE's interface in C, waiting in each of the ways that
// there are, gives TCP clients their bytes back.
func TestEcho(t *testing.T) {
	l := netlabtest.New(t, netlab.Config{})
	for _, c := range []struct {
		way string
		sig unix.Signal
	}{{"poll", unix.SIGTERM}, {"select", unix.SIGINT}, {"epoll", unix.SIGTERM}, {"keep", unix.SIGINT}} {
		t.Run(c.way, func(t *testing.T) {
			p, addr := echoServer(t, l, nil, c.way)
			talkAll(t, l, addr)
			end(t, p, c.sig)
		})
	}
}

// TestEchoOnNIC: PST_ATTACH gives the port a NIC, whose frames come by AF_XDP.
func TestEchoOnNIC(t *testing.T) {
	l := netlabtest.New(t, netlab.Config{})
	p, addr := echoServer(t, l, []string{"--receive", "steered"}, "poll", l.ServerDev)
	talkAll(t, l, addr)
	out, err := l.ServerCommand(t.Context(), filepath.Join(bin, "pastectl"), "status", "--json", l.ServerDev).CombinedOutput()
	qt.Check(t, qt.IsNil(err), qt.Commentf("%s", out))
	var steered int
	_, rest, _ := strings.Cut(string(out), `"steered_bytes":`)
	_, err = fmt.Sscan(rest, &steered)
	qt.Check(t, qt.IsNil(err), qt.Commentf("%s", out))
	qt.Check(t, qt.IsTrue(steered > 0))
	end(t, p, unix.SIGTERM)
}

// TestEchoInPool: the ports' memory is a pool in a file, which is whole afterwards.
func TestEchoInPool(t *testing.T) {
	l := netlabtest.New(t, netlab.Config{})
	pool := filepath.Join(bin, "echo.pool")
	p, addr := echoServer(t, l, []string{"--pool", pool, "--pool-size", "32MiB"}, "keep")
	talkAll(t, l, addr)
	end(t, p, unix.SIGTERM)
	out, err := exec.Command(filepath.Join(bin, "pastectl"), "pool", "check", pool).CombinedOutput()
	qt.Check(t, qt.IsNil(err), qt.Commentf("%s", out))
}

// TestUDP: a UDP server of PASTE's interface in C sends datagrams back by swapping the
// addresses in the headers before their payload.
func TestUDP(t *testing.T) {
	l := netlabtest.New(t, netlab.Config{})
	p, err := childproc.Start(l.ServerCommand(context.Background(), filepath.Join(bin, "pastectl"), underPaste(nil, "udp")...))
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(p.Kill)
	var port string
	qt.Assert(t, qt.IsNil(p.Await("ready", func(line []byte) bool { port = string(line); return true })))
	for range 3 {
		var c net.Conn
		qt.Assert(t, qt.IsNil(l.InClient(func() (err error) {
			c, err = net.Dial("udp", net.JoinHostPort(l.ServerIP4.String(), port))
			return err
		})))
		defer c.Close()
		qt.Assert(t, qt.IsNil(c.SetDeadline(time.Now().Add(patience))))
		for size := range 100 {
			sent := bytes.Repeat([]byte{byte(size)}, 1+size*14)
			_, err := c.Write(sent)
			qt.Assert(t, qt.IsNil(err))
			got := make([]byte, 2000)
			n, err := c.Read(got)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsTrue(bytes.Equal(got[:n], sent)))
		}
	}
	end(t, p, unix.SIGTERM)
}

// TestRawPorts: ports of whole frames, bound rightly and wrongly.
func TestRawPorts(t *testing.T) {
	l := netlabtest.New(t, netlab.Config{})
	out, err := l.ServerCommand(t.Context(), filepath.Join(bin, "pastectl"), underPaste(nil, "raw", l.ServerDev)...).CombinedOutput()
	qt.Check(t, qt.IsNil(err), qt.Commentf("%s", out))
	qt.Check(t, qt.StringContains(string(out), "0 of "))
}

// TestFrames: a generator and a receiver in C, each on one end of a wire, lose no
// frame and change none.
func TestFrames(t *testing.T) {
	l := netlabtest.New(t, netlab.Config{})
	for _, length := range []string{"60", "1514"} {
		t.Run(length, func(t *testing.T) {
			receiver, err := childproc.Start(l.ClientCommand(context.Background(), filepath.Join(bin, "pastectl"),
				underPaste(nil, "frames", "receive", l.ClientDev, "20000", length)...))
			qt.Assert(t, qt.IsNil(err))
			t.Cleanup(receiver.Kill)
			out, err := l.ServerCommand(t.Context(), filepath.Join(bin, "pastectl"),
				underPaste(nil, "frames", "send", l.ServerDev, "20000", length)...).CombinedOutput()
			qt.Check(t, qt.IsNil(err), qt.Commentf("%s", out))
			qt.Check(t, qt.StringContains(string(out), "sent 20000"))
			qt.Check(t, qt.IsNil(receiver.Await("done", func(line []byte) bool { return string(line) == "received 20000" })))
		})
	}
}

// TestNotServed: programs that the library does not get into, or not any more, are
// told so in a sentence.
func TestNotServed(t *testing.T) {
	netlabtest.RequireRoot(t)
	_, stderr, err := run(t, "static")
	qt.Check(t, qt.IsNotNil(err))
	qt.Check(t, qt.StringContains(stderr, "is statically linked"))

	stdout, stderr, err := run(t, "fork")
	qt.Check(t, qt.IsNil(err), qt.Commentf("%s%s", stdout, stderr))
	qt.Check(t, qt.Equals(strings.Count(stderr, "is a fork of one that had opened /dev/netmap"), 1), qt.Commentf("%s", stderr))
}
