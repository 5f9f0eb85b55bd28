package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/lab"
	servemain "github.com/pastenet/paste/internal/serve"
	"github.com/pastenet/paste/pasteapi"
)

// patience bounds every wait. It is for a test that hangs, not for one that is
// slow, nor for a virtual machine that its host stops for a minute.
const patience = 3 * time.Minute

func newLab(t testing.TB, cfg lab.Config) *lab.Lab {
	t.Helper()
	cfg.Prefix = labPrefix
	l, err := lab.New(context.Background(), cfg)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(l.Close())) })
	return l
}

// poolFile is the path of a pool that does not exist yet.
func poolFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(poolDir, strings.NewReplacer("/", "_", " ", "_").Replace(t.Name()))
	t.Cleanup(func() {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
	})
	return path
}

// event is a line of `serve --json`.
type event = servemain.Event

// server is a `pastectl serve` in a lab's server namespace.
type server struct {
	t      testing.TB
	cmd    *lab.Cmd
	ready  event
	url    string
	addr   string
	pool   string
	events chan event
	stderr syncBuffer
	done   chan struct{} // closed after waiting for the process
	exit   error         // valid then
}

// serve starts a server of HTTP on the lab's veth over a pool, and waits until
// it is ready. A later flag overrides an earlier one, so args can change any of
// the usual ones.
func serve(t testing.TB, l *lab.Lab, pool string, args ...string) *server {
	t.Helper()
	return serveKind(t, l, "http", pool, args...)
}

// serveKind is serve for one of "http" and "kv".
func serveKind(t testing.TB, l *lab.Lab, kind, pool string, args ...string) *server {
	t.Helper()
	s, err := start(t, l, kind, pool, args...)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(s.wait()))
	return s
}

func tryServe(t testing.TB, l *lab.Lab, pool string, args ...string) (*server, error) {
	s, err := start(t, l, "http", pool, args...)
	if err != nil {
		return nil, err
	}
	return s, s.wait()
}

// start does not wait until the server is ready.
func start(t testing.TB, l *lab.Lab, kind, pool string, args ...string) (*server, error) {
	s := &server{t: t, pool: pool, events: make(chan event, 16), done: make(chan struct{})}
	s.cmd = l.ServerCommand(context.Background(), pastectl, append([]string{"serve", kind, "--json",
		"--nic", l.ServerDev, "--listen", net.JoinHostPort(l.ServerIP4.String(), "8080"),
		"--pool", pool, "--pool-size", "64MiB"}, args...)...)
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.cmd.Stderr = &s.stderr
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(s.done)
		for d := json.NewDecoder(stdout); ; {
			var e event
			if d.Decode(&e) != nil {
				break
			}
			s.events <- e
		}
		_, _ = io.Copy(io.Discard, stdout)
		s.exit = s.cmd.Wait()
	}()
	t.Cleanup(s.kill)
	return s, nil
}

func (s *server) wait() error {
	select {
	case s.ready = <-s.events:
	case <-s.done:
		return fmt.Errorf("server ended: %w: %s", s.exit, s.stderr.String())
	case <-time.After(patience):
		return fmt.Errorf("server is not ready: %s", s.stderr.String())
	}
	s.url = s.ready.URL
	s.addr = strings.TrimPrefix(s.url, "http://")
	return nil
}

// kill is kill -9.
func (s *server) kill() {
	_ = s.cmd.Process.Kill() // an error if it has ended already
	<-s.done
}

// stop ends the server in order and returns what it counted.
func (s *server) stop() event {
	s.t.Helper()
	qt.Assert(s.t, qt.IsNil(s.cmd.Process.Signal(syscall.SIGTERM)))
	select {
	case <-s.done:
	case <-time.After(patience):
		s.t.Fatalf("server does not stop: %s", s.stderr.String())
	}
	qt.Assert(s.t, qt.IsNil(s.exit), qt.Commentf("%s", s.stderr.String()))
	return <-s.events
}

// status asks the running server through pastectl.
func (s *server) status(l *lab.Lab) pasteapi.Status {
	s.t.Helper()
	out, err := l.ServerCommand(context.Background(), pastectl, "status", l.ServerDev, "--json").Output()
	qt.Assert(s.t, qt.IsNil(err))
	var all struct {
		Ports []struct {
			PID    int             `json:"pid"`
			Status pasteapi.Status `json:"status"`
		} `json:"ports"`
	}
	qt.Assert(s.t, qt.IsNil(json.Unmarshal(out, &all)))
	qt.Assert(s.t, qt.HasLen(all.Ports, 1))
	qt.Check(s.t, qt.Equals(all.Ports[0].PID, s.cmd.Process.Pid))
	return all.Ports[0].Status
}

// ctl runs pastectl in the server's namespace. err is its exit.
func ctl(l *lab.Lab, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := l.ServerCommand(ctx, pastectl, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// dial connects from the client's namespace, with a deadline for everything
// that follows.
func dial(t testing.TB, l *lab.Lab, addr string) *net.TCPConn {
	t.Helper()
	c, err := tryDial(l, addr)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { c.Close() })
	return c
}

func tryDial(l *lab.Lab, addr string) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := l.Client.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), c.SetDeadline(time.Now().Add(patience))
}

func random(n int, seed int64) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(seed)).Read(b)
	return b
}

// syncBuffer is written by a child's pipe while a test may read it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// parallel runs f n times at once and reports each error.
func parallel(t testing.TB, n int, f func(i int) error) {
	t.Helper()
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = f(i)
		}()
	}
	wg.Wait()
	failed := 0
	for i, err := range errs {
		if err != nil {
			if failed++; failed <= 5 {
				t.Errorf("%d of %d: %v", i, n, err)
			}
		}
	}
	if failed > 5 {
		t.Errorf("%d of %d failed in all", failed, n)
	}
}

func removeFile(t testing.TB, path string) {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
}

func newReader(b []byte) io.Reader { return bytes.NewReader(b) }

func newLocal(name string, args ...string) *exec.Cmd {
	return exec.CommandContext(context.Background(), name, args...)
}

func itoa(n int) string { return strconv.Itoa(n) }
