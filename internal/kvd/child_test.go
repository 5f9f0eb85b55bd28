package kvd

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/httpd"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/kv"
)

// childEnv has the pool of a server that the test program is to be, addrEnv where it
// listens, and loseEnv says that it shall lose a write now and then.
const (
	childEnv = "PASTE_TEST_KVD"
	addrEnv  = "PASTE_TEST_ADDR"
	loseEnv  = "PASTE_TEST_LOSE"
)

// child is a server in a process of its own, which can be killed.
func child() int {
	if err := serveChild(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// loser answers PUTs of some values without storing them.
type loser struct {
	httpd.Handler
	n int
}

func (l *loser) Finish(x *httpd.Exchange, full bool) error {
	h := l.Handler.(*handler)
	if q := x.State().(*request); q.act == actPut && q.cond.none() {
		if l.n++; l.n%7 == 0 {
			return h.done(x, 204, `"lost"`)
		}
	}
	return h.Finish(x, full)
}

func serveChild() error {
	pool, err := pmem.OpenOrCreate(os.Getenv(childEnv), pmem.Options{Size: 64 << 20})
	if err != nil {
		return err
	}
	store, err := kv.Open(pool, kv.Options{Verify: true})
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	wrap := func(h httpd.Handler) httpd.Handler { return h }
	if os.Getenv(loseEnv) != "" {
		wrap = func(h httpd.Handler) httpd.Handler { return &loser{Handler: h} }
	}
	srv, err := newServer(httpd.Config{Addr: os.Getenv(addrEnv), Logger: log, Rings: 2}, store, hooks{wrap: wrap})
	if err != nil {
		return err
	}
	port, err := pasteapi.Open(context.Background(), pasteapi.Options{Pool: pool, Rings: 2, Logger: log})
	if err != nil {
		return err
	}
	fmt.Println(srv.Addr())
	return srv.Run(context.Background(), port.Ring(0), port.Ring(1))
}

// process is a child.
type process struct {
	cmd  *exec.Cmd
	addr string
}

// poolFile names a pool on a file system that survives a process.
func poolFile(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "kvd-test")
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "pool")
}

// start starts a child; addr is where one before it has listened, or has port 0.
func start(t *testing.T, pool, addr string, env ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(append(os.Environ(), childEnv+"="+pool, addrEnv+"="+addr), env...)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(p.cmd.Start()))
	t.Cleanup(p.kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	qt.Assert(t, qt.IsNil(err))
	p.addr = strings.TrimSpace(line)
	return p
}

// kill is kill -9.
func (p *process) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}
