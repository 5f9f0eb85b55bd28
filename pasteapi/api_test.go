package pasteapi

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/testwait"
	"github.com/pastenet/paste/pmem"
	"golang.org/x/sys/unix"
)

// openLocal opens a port without a NIC. The test's end closes it, if it is open
// still, and looks for frames that did not come back.
func openLocal(t *testing.T, o Options) *Port {
	t.Helper()
	pool, err := pmem.NewMemory("api-test", pmem.Options{Size: 16 << 20})
	qt.Assert(t, qt.IsNil(err))
	free := pool.Free()
	o.Pool = pool
	p, err := Open(context.Background(), o)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() {
		qt.Check(t, qt.IsNil(p.Close()))
		qt.Check(t, qt.Equals(pool.Free(), free), qt.Commentf("frames leaked"))
		qt.Check(t, qt.Equals(pool.Misuses(), 0))
		qt.Check(t, qt.IsNil(pool.Close()))
	})
	return p
}

// TestOptions: what cannot work is refused, with the limits named.
func TestOptions(t *testing.T) {
	pool, err := pmem.NewMemory("api-test", pmem.Options{Size: 4 << 20})
	qt.Assert(t, qt.IsNil(err))
	defer pool.Close()
	for want, o := range map[string]Options{
		`open port: no pool \(Options.Pool\)`:                                        {},
		`open port: -1 slots: need a power of two from 64 to 32768`:                  {Pool: pool, Slots: -1},
		`open port: 100 slots: .*`:                                                   {Pool: pool, Slots: 100},
		`open port: 65536 slots: .*`:                                                 {Pool: pool, Slots: 65536},
		`open port: -2 rings: need 1 to 64`:                                          {Pool: pool, Rings: -2},
		`open port: 65 rings: need 1 to 64`:                                          {Pool: pool, Rings: 65},
		`open port: -5 connections: need 1 to 1048576`:                               {Pool: pool, MaxConns: -5},
		`open port: 4294967296 connections: .*`:                                      {Pool: pool, MaxConns: 1 << 32},
		`open port: limit of -1 bytes to send: must be positive`:                     {Pool: pool, TxLimit: -1},
		`open ring 0: give buffers to 8192 slots: no free buffer in the pool \(.*\)`: {Pool: pool, Slots: 4096},
		`open port on no-such-nic: no-such-nic: .* in this network namespace; .*`:    {Pool: pool, Slots: 64, NIC: "no-such-nic"},
	} {
		p, err := Open(context.Background(), o)
		qt.Check(t, qt.ErrorMatches(err, want))
		qt.Check(t, qt.IsNil(p))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = Open(ctx, Options{Pool: pool, Slots: 64})
	qt.Check(t, qt.ErrorIs(err, context.Canceled))
	free := pool.Free()
	_, err = Open(context.Background(), Options{Pool: pool, Slots: 64, NIC: "no-such-nic"})
	qt.Check(t, qt.IsNotNil(err))
	qt.Check(t, qt.Equals(pool.Free(), free))
}

// TestAfterClose: a port may be closed twice, and everything is refused, or does
// nothing, afterwards.
func TestAfterClose(t *testing.T) {
	p := openLocal(t, Options{Slots: 64})
	r := p.Ring(0)
	fd, peer := tcpPair(t)
	defer unix.Close(fd)
	qt.Assert(t, qt.IsNil(r.Register(fd)))
	slot := *r.RX().Slot(0)
	qt.Assert(t, qt.IsNil(p.Close()))
	qt.Assert(t, qt.IsNil(p.Close()))
	_, pollErr := r.Poll(0)
	_, rxErr := r.RxSync()
	_, keepErr := r.Keep(&slot)
	_, connErr := r.RegisterConn(peer)
	for name, err := range map[string]error{
		"Poll": pollErr, "RxSync": rxErr, "TxSync": r.TxSync(), "Keep": keepErr,
		"Register": r.Register(fd), "RegisterConn": connErr, "Unregister": r.Unregister(fd),
		"CloseAfterSend": r.CloseAfterSend(fd), "Watch": r.Watch(fd), "Unwatch": r.Unwatch(fd),
		"PlaceConnections": r.PlaceConnections(fd), "Steer": p.Steer(7), "Unsteer": p.Unsteer(7),
	} {
		qt.Check(t, qt.ErrorIs(err, ErrClosed), qt.Commentf("%s", name))
	}
	r.Wake()
	qt.Check(t, qt.Equals(r.TxQueued(fd), 0))
	qt.Check(t, qt.HasLen(p.Status().Queues, 0))

	// The socket is an ordinary one again.
	_, err := peer.Write([]byte("hello"))
	qt.Assert(t, qt.IsNil(err))
	var b [8]byte
	qt.Assert(t, qt.IsNil(unix.SetNonblock(fd, false)))
	n, err := unix.Read(fd, b[:])
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(b[:n]), "hello"))
}

// TestCloseDuringPoll closes a port while another goroutine waits in Poll.
func TestCloseDuringPoll(t *testing.T) {
	for name, o := range map[string]Options{"sleeping": {Slots: 64}, "busy": {Slots: 64, Spin: -1}} {
		t.Run(name, func(t *testing.T) {
			p := openLocal(t, o)
			r := p.Ring(0)
			done := make(chan error, 1)
			go func() {
				for {
					if _, err := r.Poll(-1); err != nil {
						done <- err
						return
					}
				}
			}()
			testwait.Until(t, "the other goroutine in Poll", r.wait.Entered)
			qt.Assert(t, qt.IsNil(p.Close()))
			qt.Assert(t, qt.ErrorIs(testwait.Receive(t, "the end of Poll", done), ErrClosed))
		})
	}
}

// TestSteerAgain: Status lists a port once, and not after Unsteer.
func TestSteerAgain(t *testing.T) {
	p := openLocal(t, Options{Slots: 64})
	qt.Check(t, qt.ErrorMatches(p.Steer(0), "steer port 0: .*"))
	for range 2 {
		qt.Check(t, qt.IsNil(p.Steer(80)))
		qt.Check(t, qt.DeepEquals(p.Status().Ports, []uint16{80}))
	}
	for range 2 {
		qt.Check(t, qt.IsNil(p.Unsteer(80)))
		qt.Check(t, qt.HasLen(p.Status().Ports, 0))
	}
}

// TestPollWithContext is how a context ends a Poll.
func TestPollWithContext(t *testing.T) {
	r := openLocal(t, Options{Slots: 64}).Ring(0)
	ctx, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(ctx, r.Wake)
	defer stop()
	go cancel()
	for ctx.Err() == nil {
		_, err := r.Poll(-1)
		qt.Assert(t, qt.IsNil(err))
	}
}

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
	qt.Assert(t, qt.IsNil(unix.Connect(udp, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}})))
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
		{"udp", udp, ErrNotSocket},
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
	var rest []uint32
	for f, ok := r.frames.Take(); ok; f, ok = r.frames.Take() {
		rest = append(rest, f)
	}
	qt.Assert(t, qt.IsNil(r.Register(fd)))
	_, err = peer.Write([]byte(", after"))
	qt.Assert(t, qt.IsNil(err))
	n, err := r.Poll(0)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(n, 0))
	for _, f := range rest {
		r.frames.Give(f)
	}
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

// TestHeldWhileRead: what a peer sends that takes no replies stays in its socket,
// and comes when it takes them.
func TestHeldWhileRead(t *testing.T) {
	r, _ := newTestRing(t, func(o *Options) { o.TxLimit = 400_000 })
	fd, peer := tcpPair(t)
	defer unix.Close(fd)
	qt.Assert(t, qt.IsNil(r.Register(fd)))
	qt.Assert(t, qt.IsNil(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4096)))
	for r.TxQueued(fd) <= 100_000 {
		put(r, fd, make([]byte, 2000))
		qt.Assert(t, qt.IsNil(r.TxSync()))
	}
	_, err := peer.Write([]byte("not now"))
	qt.Assert(t, qt.IsNil(err))
	for range 20 {
		n, err := r.Poll(time.Millisecond)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(n, 0))
	}
	go func() { _, _ = io.Copy(io.Discard, peer) }()
	var got []byte
	for len(got) < len("not now") {
		_, err := r.Poll(time.Second)
		qt.Assert(t, qt.IsNil(err))
		for seg := range r.Segments() {
			got = append(got, seg.Payload()...)
		}
	}
	qt.Check(t, qt.Equals(string(got), "not now"))
	qt.Assert(t, qt.IsNil(r.Unregister(fd)))
}
