package pasteapi

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/testwait"
	"golang.org/x/sys/unix"
)

// TestRegisterRefuses tries what is no connected TCP socket.
func TestRegisterRefuses(t *testing.T) {
	p := openLocal(t, Options{Slots: 64, Rings: 2, MaxConns: 2})
	r := p.Ring(0)
	socket := func(domain, typ, proto int) int {
		fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, proto)
		qt.Assert(t, qt.IsNil(err))
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	listening := socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	qt.Assert(t, qt.IsNil(unix.Listen(listening, 1)))
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	qt.Assert(t, qt.IsNil(err))
	udp := socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	raw := socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP)
	qt.Assert(t, qt.IsNil(unix.Connect(raw, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})))
	file, err := os.Open("/dev/null")
	qt.Assert(t, qt.IsNil(err))
	defer file.Close()
	reset, peer := tcpPair(t)
	defer unix.Close(reset)
	qt.Assert(t, qt.IsNil(peer.SetLinger(0)))
	qt.Assert(t, qt.IsNil(peer.Close()))
	waitState(t, reset, unix.BPF_TCP_CLOSE)
	for _, c := range []struct {
		name string
		fd   int
		want error
	}{
		{"-1", -1, ErrNotSocket},
		{"closed", 1 << 20, ErrNotSocket},
		{"file", int(file.Fd()), ErrNotSocket},
		{"udp, neither bound nor connected", udp, ErrNotConnected},
		{"unix", pair[0], ErrNotSocket},
		{"raw", raw, ErrNotConnected},
		{"listening", listening, ErrNotConnected},
		{"not connected", socket(unix.AF_INET6, unix.SOCK_STREAM, 0), ErrNotConnected},
		{"reset", reset, ErrNotConnected},
	} {
		err := r.Register(c.fd)
		qt.Check(t, qt.ErrorIs(err, c.want), qt.Commentf("%s", c.name))
		qt.Check(t, qt.IsFalse(strings.Contains(err.Error(), "\n")), qt.Commentf("%s: %v", c.name, err))
		qt.Check(t, qt.ErrorIs(r.Unregister(c.fd), ErrNotRegistered), qt.Commentf("%s", c.name))
	}
	unix.Close(pair[0])
	unix.Close(pair[1])

	fd, _ := tcpPair(t)
	defer unix.Close(fd)
	qt.Assert(t, qt.IsNil(r.Register(fd)))
	qt.Check(t, qt.ErrorIs(r.Register(fd), ErrRegistered))
	dup, err := unix.Dup(fd)
	qt.Assert(t, qt.IsNil(err))
	defer unix.Close(dup)
	qt.Check(t, qt.ErrorIs(r.Register(dup), ErrRegistered))
	qt.Check(t, qt.ErrorIs(p.Ring(1).Register(fd), ErrRegistered))
	second, _ := tcpPair(t)
	defer unix.Close(second)
	qt.Assert(t, qt.IsNil(r.Register(second)))
	third, _ := tcpPair(t)
	defer unix.Close(third)
	qt.Check(t, qt.ErrorIs(r.Register(third), ErrTooManyConns))
	qt.Check(t, qt.Equals(r.count().Conns, 2))
	for _, fd := range []int{fd, second} {
		qt.Check(t, qt.IsNil(r.Unregister(fd)))
	}
}

// TestStatsBeforeRegistration: what waited in a socket is counted as well.
func TestStatsBeforeRegistration(t *testing.T) {
	r, _ := newTestRing(t)
	fd, peer := tcpPair(t)
	defer unix.Close(fd)
	_, err := peer.Write(make([]byte, 5000))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(r.Register(fd)))
	got := 0
	for got < 5000 {
		_, err := r.Poll(-1)
		qt.Assert(t, qt.IsNil(err))
		for ; !r.RX().Empty(); r.RX().Head, r.RX().Cur = r.RX().Next(r.RX().Head), r.RX().Next(r.RX().Head) {
			got += len(r.RX().Payload(r.RX().Slot(r.RX().Head)))
		}
	}
	qt.Check(t, qt.Equals(r.count().ReadBytes, 5000))
	qt.Assert(t, qt.IsNil(r.Unregister(fd)))
}

// TestDescriptorReused closes a registered socket without a word, with replies
// waiting for its peer, and then has its number used by another one: nothing of
// the old connection reaches the new one, which can be registered.
func TestDescriptorReused(t *testing.T) {
	for _, again := range []bool{true, false} {
		r, _ := newTestRing(t)
		fd, peer := tcpPair(t)
		qt.Assert(t, qt.IsNil(r.Register(fd)))
		qt.Assert(t, qt.IsNil(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4096)))
		for r.TxQueued(fd) < 50_000 {
			put(r, fd, make([]byte, 2000))
			qt.Assert(t, qt.IsNil(r.TxSync()))
		}
		other, otherPeer := tcpPair(t)
		qt.Assert(t, qt.IsNil(unix.Dup3(other, fd, unix.O_CLOEXEC))) // closes fd
		qt.Assert(t, qt.IsNil(unix.Close(other)))
		if again {
			qt.Assert(t, qt.IsNil(r.Register(fd)))
		}
		r.sweep()
		_, err := r.Poll(0)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(r.TxQueued(fd), 0))
		if again {
			put(r, fd, []byte("mine"))
			qt.Assert(t, qt.IsNil(r.TxSync()))
			b := make([]byte, 4)
			_, err := io.ReadFull(otherPeer, b)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(string(b), "mine"))
		} else {
			qt.Check(t, qt.ErrorIs(r.CloseCause(fd), unix.EBADF))
		}
		qt.Assert(t, qt.IsNil(r.Unregister(fd)))
		qt.Check(t, qt.Equals(r.count().Conns, 0))
		qt.Assert(t, qt.IsNil(unix.Close(fd)))
		if !again {
			b, err := io.ReadAll(otherPeer)
			qt.Check(t, qt.IsNil(err))
			qt.Check(t, qt.HasLen(b, 0), qt.Commentf("bytes of another connection"))
		}
		_ = peer.Close()
	}
}

// TestDescriptorNotASocketAnyMore: the number of a closed socket may be a
// file's by the time of Unregister, or nobody's.
func TestDescriptorNotASocketAnyMore(t *testing.T) {
	r, _ := newTestRing(t)
	fd, _ := tcpPair(t)
	qt.Assert(t, qt.IsNil(r.Register(fd)))
	null, err := os.Open("/dev/null")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(unix.Dup3(int(null.Fd()), fd, unix.O_CLOEXEC)))
	qt.Check(t, qt.IsNil(null.Close()))
	qt.Check(t, qt.IsNil(r.Unregister(fd)))
	qt.Check(t, qt.IsNil(unix.Close(fd)))

	fd, _ = tcpPair(t)
	qt.Assert(t, qt.IsNil(r.Register(fd)))
	qt.Assert(t, qt.IsNil(unix.Close(fd)))
	_, err = r.Poll(0)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.IsNil(r.Unregister(fd)))

	fd, conn := tcpPair(t)
	qt.Check(t, qt.IsNil(unix.Close(fd)))
	qt.Check(t, qt.IsNil(conn.Close()))
	_, err = r.RegisterConn(conn)
	qt.Check(t, qt.ErrorIs(err, net.ErrClosed))
}

// TestRegisterAgain: deliveries that were on their way when a connection was
// unregistered are not taken for those of its next registration.
func TestRegisterAgain(t *testing.T) {
	r, _ := newTestRing(t, func(o *Options) { o.Receive = ReceiveCopied })
	fd, peer := tcpPair(t)
	defer unix.Close(fd)
	for i := range 20 {
		qt.Assert(t, qt.IsNil(r.Register(fd)))
		_, err := peer.Write([]byte("dropped"))
		qt.Assert(t, qt.IsNil(err))
		testwait.Until(t, "a delivery", r.tk.Pending)
		qt.Assert(t, qt.IsNil(r.Unregister(fd)))
		qt.Assert(t, qt.IsNil(r.Register(fd)))
		want := []byte{'a' + byte(i), 'b'}
		_, err = peer.Write(want)
		qt.Assert(t, qt.IsNil(err))
		var got []byte
		for len(got) < len(want) {
			_, err := r.Poll(-1)
			qt.Assert(t, qt.IsNil(err))
			for seg := range r.Segments() {
				qt.Assert(t, qt.IsFalse(seg.Closed()), qt.Commentf("%v", seg.Cause()))
				got = append(got, seg.Payload()...)
			}
		}
		qt.Assert(t, qt.Equals(string(got), string(want)))
		qt.Assert(t, qt.IsNil(r.Unregister(fd)))
	}
}

// TestRegisterEmptyPool: a connection is registered although there is no frame
// for what waits in its socket; it is read when there is one.
func TestRegisterEmptyPool(t *testing.T) {
	r, _ := newTestRing(t)
	fd, peer := tcpPair(t)
	defer unix.Close(fd)
	_, err := peer.Write([]byte("before"))
	qt.Assert(t, qt.IsNil(err))
	giveBack := takeAll(r)
	qt.Assert(t, qt.IsNil(r.Register(fd)))
	_, err = peer.Write([]byte(", after"))
	qt.Assert(t, qt.IsNil(err))
	n, err := r.Poll(0)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(n, 0))
	giveBack()
	qt.Assert(t, qt.IsNil(peer.CloseWrite()))
	var got []byte
	for open := true; open; {
		_, err := r.Poll(-1)
		qt.Assert(t, qt.IsNil(err))
		for seg := range r.Segments() {
			got = append(got, seg.Payload()...)
			open = !seg.Closed()
		}
	}
	qt.Check(t, qt.Equals(string(got), "before, after"))
	qt.Assert(t, qt.IsNil(r.Unregister(fd)))
}

// TestUrgentData: a byte of urgent data is one of the stream, by each way in.
func TestUrgentData(t *testing.T) {
	for _, mode := range []ReceiveMode{ReceiveAuto, ReceiveCopied} {
		r, _ := newTestRing(t, func(o *Options) { o.Receive = mode })
		fd, peer := tcpPair(t)
		defer unix.Close(fd)
		qt.Assert(t, qt.IsNil(r.Register(fd)))
		raw, err := peer.SyscallConn()
		qt.Assert(t, qt.IsNil(err))
		_, err = peer.Write([]byte("before "))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(raw.Control(func(p uintptr) { err = unix.Sendto(int(p), []byte("!"), unix.MSG_OOB, nil) })))
		qt.Assert(t, qt.IsNil(err))
		_, err = peer.Write([]byte(" behind"))
		qt.Assert(t, qt.IsNil(err))
		var got []byte
		for len(got) < len("before ! behind") {
			_, err := r.Poll(time.Second)
			qt.Assert(t, qt.IsNil(err))
			for seg := range r.Segments() {
				got = append(got, seg.Payload()...)
			}
		}
		qt.Check(t, qt.Equals(string(got), "before ! behind"), qt.Commentf("%v", mode))
		qt.Assert(t, qt.IsNil(r.Unregister(fd)))
	}
}
