package redisd

import (
	"net/netip"
	"runtime"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// A connection that waits for its next command takes at most 2 KiB of memory, also after
// it has sent and was sent more than that.
func TestMemoryOfConnections(t *testing.T) {
	l := open(t, 64<<20, 1, Config{})
	addr := netip.MustParseAddrPort(l.addr)
	to := &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	value := string(make([]byte, 1024))
	burst, answers := "", 0
	for range 8 {
		burst += request("SET", "k", value) + request("GET", "k")
		answers += len("+OK\r\n") + len("$1024\r\n") + len(value) + len("\r\n")
	}
	got := make([]byte, answers)
	connect := func(n int) { // by system calls, so that the test's memory does not grow
		for range n {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			qt.Assert(t, qt.IsNil(err))
			t.Cleanup(func() { unix.Close(fd) })
			qt.Assert(t, qt.IsNil(unix.Connect(fd, to)))
			n, err := unix.Write(fd, []byte(burst))
			qt.Assert(t, qt.IsTrue(err == nil && n == len(burst)), qt.Commentf("%d, %v", n, err))
			for n := 0; n < answers; {
				k, err := unix.Read(fd, got[n:])
				qt.Assert(t, qt.IsTrue(err == nil && k > 0), qt.Commentf("%d, %v", k, err))
				n += k
			}
		}
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse)
	}
	connect(64) // what all share has been made then
	before := heap()
	const n = 512
	connect(n)
	each := (heap() - before) / n
	qt.Check(t, qt.IsTrue(each <= 2048), qt.Commentf("%d bytes", each))
	t.Logf("%d bytes for each of %d connections", each, n)
}
