package pasteapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/testwait"
	"github.com/pastenet/paste/pasteapi/internal/conns"
	"golang.org/x/sys/unix"
)

// tcpPair connects two sockets over the loopback device. The server's end is a
// descriptor of its own, which the test closes.
func tcpPair(t testing.TB) (fd int, peer *net.TCPConn) {
	t.Helper()
	lfd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	qt.Assert(t, qt.IsNil(err))
	defer unix.Close(lfd)
	qt.Assert(t, qt.IsNil(unix.Bind(lfd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})))
	qt.Assert(t, qt.IsNil(unix.Listen(lfd, 1)))
	sa, err := unix.Getsockname(lfd)
	qt.Assert(t, qt.IsNil(err))
	addr, err := conns.AddrPort(sa)
	qt.Assert(t, qt.IsNil(err))
	c, err := net.Dial("tcp", addr.String())
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { c.Close() })
	fd, _, err = unix.Accept4(lfd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	qt.Assert(t, qt.IsNil(err))
	return fd, c.(*net.TCPConn)
}

// waitState waits until a socket is in a state (include/net/tcp_states.h).
func waitState(t testing.TB, fd int, state uint8) {
	t.Helper()
	testwait.Until(t, fmt.Sprintf("state %d of the socket", state), func() bool {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		qt.Assert(t, qt.IsNil(err))
		return info.State == state
	})
}

// put writes a payload into the next TX slot.
func put(r *Ring, fd int, b []byte) {
	s := r.TX().Slot(r.TX().Head)
	s.SetFd(fd)
	s.SetDoff(0)
	s.Len = uint16(copy(r.TX().Buf(s), b))
	r.TX().Head = r.TX().Next(r.TX().Head)
	r.TX().Cur = r.TX().Head
}

// TestSlowReaderEmptyPool has a peer that reads nothing for a while, and a pool
// without a free frame: its replies wait all the same, and arrive.
func TestSlowReaderEmptyPool(t *testing.T) {
	r, pool := newTestRing(t)
	fd, peer := tcpPair(t)
	defer unix.Close(fd)
	qt.Assert(t, qt.IsNil(r.Register(fd)))
	qt.Assert(t, qt.IsNil(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4096)))
	qt.Assert(t, qt.IsNil(peer.SetReadBuffer(4096)))

	rest := make([]uint32, pool.Frames())
	rest = rest[:pool.Alloc(rest)]
	defer func() { pool.UnrefAll(rest) }()
	want := make([]byte, 256<<10)
	rand.New(rand.NewSource(1)).Read(want)
	for b := want; len(b) > 0; {
		n := min(2000, len(b))
		put(r, fd, b[:n])
		b = b[n:]
		if len(b)%3 == 0 || r.TX().Empty() {
			qt.Assert(t, qt.IsNil(r.TxSync()))
		}
	}
	qt.Assert(t, qt.IsNil(r.TxSync()))
	qt.Assert(t, qt.IsTrue(r.TxQueued(fd) > 100_000), qt.Commentf("%d bytes wait", r.TxQueued(fd)))
	qt.Assert(t, qt.IsTrue(r.count().TxFailed == 0), qt.Commentf("%v", r.CloseCause(fd)))

	type result struct {
		data []byte
		err  error
	}
	got := make(chan result, 1)
	go func() {
		b := make([]byte, len(want))
		_, err := io.ReadFull(peer, b)
		got <- result{b, err}
		r.Wake()
	}()
	for end := time.Now().Add(3 * time.Minute); ; {
		_, err := r.Poll(time.Second)
		qt.Assert(t, qt.IsNil(err))
		select {
		case res := <-got:
			qt.Assert(t, qt.IsNil(res.err))
			qt.Check(t, qt.IsTrue(bytes.Equal(res.data, want)))
			qt.Check(t, qt.Equals(r.TxQueued(fd), 0))
			qt.Check(t, qt.Equals(r.out.Copies(), 0))
			qt.Assert(t, qt.IsNil(r.Unregister(fd)))
			return
		default:
			qt.Assert(t, qt.IsTrue(time.Now().Before(end)), qt.Commentf("%d bytes wait", r.TxQueued(fd)))
		}
	}
}

// TestSlowReadersLimit fills the room for copies: one connection more is given
// up, and giving it up makes room.
func TestSlowReadersLimit(t *testing.T) {
	r, pool := newTestRing(t, func(o *Options) { o.TxLimit = 128 << 20 })
	fd, _ := tcpPair(t)
	defer unix.Close(fd)
	qt.Assert(t, qt.IsNil(r.Register(fd)))
	rest := make([]uint32, pool.Frames())
	rest = rest[:pool.Alloc(rest)]
	defer func() { pool.UnrefAll(rest) }()
	chunk := make([]byte, 2048)
	for i := 0; !errors.Is(r.CloseCause(fd), ErrTxOverflow); i++ {
		qt.Assert(t, qt.IsTrue(i < 128<<20/len(chunk)), qt.Commentf("%v", i))
		copies := r.out.Copies()
		qt.Assert(t, qt.IsTrue(copies <= 64<<20), qt.Commentf("%d", copies))
		for !r.TX().Empty() {
			put(r, fd, chunk)
		}
		qt.Assert(t, qt.IsNil(r.TxSync()))
	}
	qt.Check(t, qt.Equals(r.out.Copies(), 0))
	qt.Assert(t, qt.IsNil(r.Unregister(fd)))
}
