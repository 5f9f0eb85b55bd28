// Package servertest is for tests of servers that are killed: the test program is
// started again as a server in a process of its own. It also keeps what clients of such
// a server have seen, to be checked for linearizability.
package servertest

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// What a child finds in its environment: its pool and the address to listen at.
const (
	poolEnv = "PASTE_TEST_SERVER"
	addrEnv = "PASTE_TEST_ADDR"
	loseEnv = "PASTE_TEST_LOSE"
)

// Lose has a child lose a write now and then.
const Lose = loseEnv + "=1"

// Child is what a server in a process of its own is to be.
type Child struct {
	Pool *pmem.Pool
	Addr string
	Lose bool
	Log  *slog.Logger
}

// Main is called first in TestMain. In a child it serves, and never returns.
func Main(serve func(*Child) error) {
	path := os.Getenv(poolEnv)
	if path == "" {
		return
	}
	pool, err := pmem.OpenOrCreate(path, pmem.Options{Size: 64 << 20})
	if err == nil {
		err = serve(&Child{Pool: pool, Addr: os.Getenv(addrEnv), Lose: os.Getenv(loseEnv) != "", Log: slog.New(slog.DiscardHandler)})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Run runs a server that listens at addr on two rings over the pool.
func (c *Child) Run(addr any, run func(context.Context, *pasteapi.Ring, *pasteapi.Ring) error) error {
	port, err := pasteapi.Open(context.Background(), pasteapi.Options{Pool: c.Pool, Rings: 2, Logger: c.Log})
	if err != nil {
		return err
	}
	fmt.Println(addr)
	return run(context.Background(), port.Ring(0), port.Ring(1))
}

// PoolFile names a pool on a file system that survives a process.
func PoolFile(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "server-test")
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "pool")
}

// Process is a child that serves.
type Process struct {
	Addr string
	// Kill is kill -9, and waits for the end. It may be called again, and is by the end
	// of the test.
	Kill func()
}

// Start starts a child; addr is where one before it has listened, or has port 0.
func Start(t testing.TB, pool, addr string, env ...string) *Process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), poolEnv+"="+pool, addrEnv+"="+addr), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Start()))
	p := &Process{Kill: sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})}
	t.Cleanup(p.Kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	qt.Assert(t, qt.IsNil(err))
	p.Addr = strings.TrimSpace(line)
	return p
}
