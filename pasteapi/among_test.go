package pasteapi

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/testwait"
	"golang.org/x/sys/unix"
)

// TestBadAmongMany: one socket that is full, one that was reset and one that was
// closed without a word are in the middle of a batch for 1000; that batch reaches all
// others, with the one sync, and in order.
func TestBadAmongMany(t *testing.T) {
	const conns, full, dead, gone = 1000, 100, 500, 700
	p := openLocal(t, Options{Slots: 2048})
	r := p.Ring(0)
	fds, peers := make([]int, conns), make([]*net.TCPConn, conns)
	for i := range fds {
		fds[i], peers[i] = tcpPair(t)
		qt.Assert(t, qt.IsNil(r.Register(fds[i])))
		if i != gone {
			defer unix.Close(fds[i])
		}
	}
	qt.Assert(t, qt.IsNil(unix.SetsockoptInt(fds[full], unix.SOL_SOCKET, unix.SO_SNDBUF, 4096)))
	for r.TxQueued(fds[full]) == 0 {
		put(r, fds[full], make([]byte, 2000))
		qt.Assert(t, qt.IsNil(r.TxSync()))
	}
	qt.Assert(t, qt.IsNil(peers[dead].SetLinger(0)))
	qt.Assert(t, qt.IsNil(peers[dead].Close()))
	waitState(t, fds[dead], unix.BPF_TCP_CLOSE)
	qt.Assert(t, qt.IsNil(unix.Close(fds[gone])))

	for _, part := range []string{"one ", "two ", "three"} {
		for _, fd := range fds {
			put(r, fd, []byte(part))
		}
		qt.Assert(t, qt.IsNil(r.TxSync()))
	}
	b := make([]byte, len("one two three"))
	for i, c := range peers {
		if i == full || i == dead || i == gone {
			continue
		}
		qt.Assert(t, qt.IsNil(c.SetReadDeadline(time.Now().Add(testwait.Patience))))
		_, err := io.ReadFull(c, b)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("connection %d", i))
		qt.Assert(t, qt.Equals(string(b), "one two three"), qt.Commentf("connection %d", i))
	}
	qt.Check(t, qt.IsTrue(r.TxQueued(fds[full]) >= len(b)), qt.Commentf("%d bytes wait", r.TxQueued(fds[full])))
	for i, fd := range fds {
		qt.Check(t, qt.IsNil(r.Unregister(fd)), qt.Commentf("connection %d", i))
	}
}
