package pasteapi

import (
	"context"
	"io"
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

// TestNoTxPoll: Poll leaves the TX ring alone where it was told to.
func TestNoTxPoll(t *testing.T) {
	for _, no := range []bool{false, true} {
		r, _ := newTestRing(t, func(o *Options) { o.NoTxPoll = no })
		fd, peer := tcpPair(t)
		defer unix.Close(fd)
		qt.Assert(t, qt.IsNil(r.Register(fd)))
		put(r, fd, []byte("x"))
		_, err := r.Poll(0)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(r.count().TxSlots, map[bool]uint64{false: 1, true: 0}[no]))
		qt.Assert(t, qt.IsNil(r.TxSync()))
		_, err = io.ReadFull(peer, make([]byte, 1))
		qt.Check(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(r.Unregister(fd)))
	}
}
