package redisd

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

	"github.com/pastenet/paste/internal/redisd/store"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// childEnv has the pool of a server that the test program is to be, and loseEnv
// that it shall lose a write now and then.
const (
	childEnv = "PASTE_TEST_REDISD"
	loseEnv  = "PASTE_TEST_LOSE"
	addrEnv  = "PASTE_TEST_ADDR"
)

// child is a server in a process of its own, which can be killed.
func child() int {
	if err := serveChild(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func serveChild() error {
	pool, err := pmem.OpenOrCreate(os.Getenv(childEnv), pmem.Options{Size: 64 << 20})
	if err != nil {
		return err
	}
	db, err := store.Open(pool, true)
	if err != nil {
		return err
	}
	if os.Getenv(loseEnv) != "" {
		n := 0
		db.Fault = func([]byte) bool { n++; return n%40 == 0 }
	}
	srv, err := New(Config{Addr: os.Getenv(addrEnv), Logger: slog.New(slog.DiscardHandler)}, db)
	if err != nil {
		return err
	}
	port, err := pasteapi.Open(context.Background(), pasteapi.Options{Pool: pool, Rings: 2, Logger: slog.New(slog.DiscardHandler)})
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
	dir, err := os.MkdirTemp("/dev/shm", "redisd-test")
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
