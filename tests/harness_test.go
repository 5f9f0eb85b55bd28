package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/childproc"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	servemain "github.com/pastenet/paste/internal/serve"
	"github.com/pastenet/paste/pasteapi"
)

// patience bounds every wait.
const patience = childproc.Patience

func newLab(t testing.TB, cfg netlab.Config) *netlab.Lab {
	t.Helper()
	cfg.Prefix = labPrefix
	return netlabtest.New(t, cfg)
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
	*childproc.Process
	t     testing.TB
	ready event
	url   string
	addr  string
	pool  string
}

// serve starts a server of HTTP on the lab's veth over a pool, and waits until
// it is ready. Flags in args take the place of the usual ones.
func serve(t testing.TB, l *netlab.Lab, pool string, args ...string) *server {
	t.Helper()
	return serveKind(t, l, "http", pool, args...)
}

// serveKind is serve for one of "http" and "kv".
func serveKind(t testing.TB, l *netlab.Lab, kind, pool string, args ...string) *server {
	t.Helper()
	s, err := start(t, l, kind, pool, args...)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(s.wait()))
	return s
}

func tryServe(t testing.TB, l *netlab.Lab, pool string, args ...string) (*server, error) {
	s, err := start(t, l, "http", pool, args...)
	if err != nil {
		return nil, err
	}
	return s, s.wait()
}

// override adds to args the pairs of flag and value in defaults whose flag args
// does not have.
func override(defaults, args []string) []string {
	out := slices.Clone(args)
	for pair := range slices.Chunk(defaults, 2) {
		has := func(arg string) bool { return arg == pair[0] || strings.HasPrefix(arg, pair[0]+"=") }
		if !slices.ContainsFunc(args, has) {
			out = append(out, pair...)
		}
	}
	return out
}

// start does not wait until the server is ready.
func start(t testing.TB, l *netlab.Lab, kind, pool string, args ...string) (*server, error) {
	defaults := []string{"--nic", l.ServerDev, "--listen", net.JoinHostPort(l.ServerIP4.String(), "8080"), "--pool", pool}
	if _, err := os.Stat(pool); err != nil { // one that exists has its size
		defaults = append(defaults, "--pool-size", "64MiB")
	}
	// What a server does by default on a veth, which has no zero-copy, is the
	// impairment tests' subject. The others are about the steered way.
	if !slices.Contains(args, "--receive") && !slices.Contains(args, "--copybreak") {
		defaults = append(defaults, "--receive", "steered")
	}
	p, err := childproc.Start(l.ServerCommand(context.Background(), pastectl,
		append([]string{"serve", kind, "--json"}, override(defaults, args)...)...))
	if err != nil {
		return nil, err
	}
	t.Cleanup(p.Kill)
	return &server{Process: p, t: t, pool: pool}, nil
}

// wait waits until the server is ready.
func (s *server) wait() (err error) {
	s.ready, err = s.event("ready")
	s.url = s.ready.URL
	_, s.addr, _ = strings.Cut(s.url, "://")
	return err
}

func (s *server) event(name string) (e event, err error) {
	err = s.Await(name, func(line []byte) bool { return json.Unmarshal(line, &e) == nil && e.Event == name })
	return e, err
}

// stop ends the server in order and returns what it counted.
func (s *server) stop() event {
	s.t.Helper()
	qt.Assert(s.t, qt.IsNil(s.Stop()))
	e, err := s.event("stopped")
	qt.Assert(s.t, qt.IsNil(err))
	return e
}

// status asks the running server through pastectl.
func (s *server) status(l *netlab.Lab) pasteapi.Status {
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
	qt.Check(s.t, qt.Equals(all.Ports[0].PID, s.PID()))
	return all.Ports[0].Status
}

// ctl runs pastectl in the server's namespace. err is its exit.
func ctl(l *netlab.Lab, args ...string) (stdout, stderr string, err error) {
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
func dial(t testing.TB, l *netlab.Lab, addr string) *net.TCPConn {
	t.Helper()
	c, err := tryDial(l, addr)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { c.Close() })
	return c
}

func tryDial(l *netlab.Lab, addr string) (*net.TCPConn, error) {
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
