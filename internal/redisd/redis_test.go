package redisd

import (
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// reference starts the redis-server of this machine, with which this one is
// compared, and returns its address. scripts/test installs it.
func reference(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	qt.Assert(t, qt.IsNil(err), qt.Commentf("the tests compare with redis-server: install the package redis-server"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	dir := t.TempDir()
	cmd := exec.Command(path, "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--dir", dir, "--logfile", filepath.Join(dir, "log"))
	qt.Assert(t, qt.IsNil(cmd.Start()))
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for end := time.Now().Add(time.Minute); ; {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return addr
		}
		qt.Assert(t, qt.IsTrue(time.Now().Before(end)), qt.Commentf("%v", err))
		time.Sleep(20 * time.Millisecond)
	}
}
