package pasteapi

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/seed"
	"github.com/pastenet/paste/internal/testwait"
	"golang.org/x/sys/unix"
)

// readable says whether a descriptor becomes readable within some milliseconds.
func readable(t testing.TB, fd, ms int) bool {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, ms)
		if err != unix.EINTR {
			qt.Assert(t, qt.IsNil(err))
			return n > 0
		}
	}
}

// patience is testwait's in milliseconds.
const patience = int(testwait.Patience / time.Millisecond)

// exposed is a ring with its descriptor, which has been found to have nothing.
func exposed(t testing.TB, with ...func(*Options)) (*Ring, int) {
	t.Helper()
	r, _ := newTestRing(t, with...)
	fd, err := r.Fd()
	qt.Assert(t, qt.IsNil(err))
	again, err := r.Fd()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(again, fd))
	quiet(t, r, fd)
	return r, fd
}

// quiet polls until the descriptor is not readable any more.
func quiet(t testing.TB, r *Ring, fd int) {
	t.Helper()
	testwait.Until(t, "nothing to be there", func() bool {
		n, err := r.Poll(0)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(n, 0))
		return !readable(t, fd, 0)
	})
}

// TestFd: the descriptor is readable as long as there is something for Poll, and
// not a moment longer than it takes Poll to find out.
func TestFd(t *testing.T) {
	for _, mode := range []ReceiveMode{ReceiveAuto, ReceiveCopied} {
		t.Run(mode.String(), func(t *testing.T) {
			r, fd := exposed(t, func(o *Options) { o.Receive = mode })
			conn, peer := tcpPair(t)
			defer unix.Close(conn)
			qt.Assert(t, qt.IsNil(r.Register(conn)))
			quiet(t, r, fd)
			_, err := peer.Write([]byte("hello"))
			qt.Assert(t, qt.IsNil(err))
			for range 3 { // the slot waits however often it is asked for
				qt.Assert(t, qt.IsTrue(readable(t, fd, patience)))
				n, err := r.Poll(0)
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.Equals(n, 1))
			}
			qt.Assert(t, qt.IsTrue(readable(t, fd, 0)))
			for range r.Segments() {
			}
			quiet(t, r, fd)

			// Bytes that wait when the connection is registered.
			second, peer2 := tcpPair(t)
			defer unix.Close(second)
			_, err = peer2.Write([]byte("early"))
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsTrue(readable(t, second, patience)))
			qt.Assert(t, qt.IsNil(r.Register(second)))
			qt.Assert(t, qt.IsTrue(readable(t, fd, 0)))
			qt.Assert(t, qt.HasLen(payloads(t, r), 1))
			quiet(t, r, fd)

			// The end of a connection.
			qt.Assert(t, qt.IsNil(peer2.Close()))
			qt.Assert(t, qt.IsTrue(readable(t, fd, patience)))
			testwait.Until(t, "the close notice", func() bool {
				n, err := r.Poll(0)
				qt.Assert(t, qt.IsNil(err))
				return n > 0
			})
			for seg := range r.Segments() {
				qt.Check(t, qt.IsTrue(seg.Closed()))
			}
			quiet(t, r, fd)
			for _, c := range []int{conn, second} {
				qt.Assert(t, qt.IsNil(r.Unregister(c)))
			}
		})
	}
}

// TestFdBetween: what comes between Poll's last look and its last step is not
// missed.
func TestFdBetween(t *testing.T) {
	r, fd := exposed(t, func(o *Options) { o.Receive = ReceiveCopied })
	conn, peer := tcpPair(t)
	defer unix.Close(conn)
	qt.Assert(t, qt.IsNil(r.Register(conn)))
	quiet(t, r, fd)
	n, err := r.rxSync()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(n, 0))
	r.in.Sleeping(false)
	_, err = peer.Write([]byte("between"))
	qt.Assert(t, qt.IsNil(err))
	testwait.Until(t, "a delivery", r.tk.Pending)
	qt.Assert(t, qt.IsFalse(readable(t, fd, 0)))
	r.expose()
	qt.Assert(t, qt.IsTrue(readable(t, fd, 0)))
	qt.Assert(t, qt.HasLen(payloads(t, r), 1))
	qt.Assert(t, qt.IsNil(r.Unregister(conn)))
}

// TestEdgeFd: who polls until there is nothing gets one event for each burst, and
// none for the slots that he has taken.
func TestEdgeFd(t *testing.T) {
	r, _ := newTestRing(t)
	fd, err := r.EdgeFd()
	qt.Assert(t, qt.IsNil(err))
	outer, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	qt.Assert(t, qt.IsNil(err))
	defer unix.Close(outer)
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET}
	qt.Assert(t, qt.IsNil(unix.EpollCtl(outer, unix.EPOLL_CTL_ADD, fd, &ev)))
	conn, peer := tcpPair(t)
	defer unix.Close(conn)
	qt.Assert(t, qt.IsNil(r.Register(conn)))
	quiet(t, r, fd)
	for readable(t, outer, 0) {
		_, err = unix.EpollWait(outer, make([]unix.EpollEvent, 1), 0)
		qt.Assert(t, qt.IsNil(err))
	}
	for range 100 {
		_, err = peer.Write([]byte("a burst"))
		qt.Assert(t, qt.IsNil(err))
		n, err := unix.EpollWait(outer, make([]unix.EpollEvent, 1), patience)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(n, 1))
		qt.Assert(t, qt.HasLen(payloads(t, r), 1))
		qt.Assert(t, qt.HasLen(payloads(t, r), 0))
		qt.Assert(t, qt.IsFalse(readable(t, outer, 0)))
	}
	qt.Assert(t, qt.IsNil(r.Unregister(conn)))
}

// payloads are those of one Poll.
func payloads(t testing.TB, r *Ring) (all []string) {
	t.Helper()
	_, err := r.Poll(0)
	qt.Assert(t, qt.IsNil(err))
	for seg := range r.Segments() {
		all = append(all, string(seg.Payload()))
	}
	return all
}

// TestFdOthers: Wake, and what the application watches, make the descriptor readable,
// and so does work for the ring's goroutine.
func TestFdOthers(t *testing.T) {
	r, fd := exposed(t)
	go r.Wake()
	qt.Assert(t, qt.IsTrue(readable(t, fd, patience)))
	quiet(t, r, fd)

	var pipe [2]int
	qt.Assert(t, qt.IsNil(unix.Pipe2(pipe[:], unix.O_CLOEXEC)))
	defer unix.Close(pipe[0])
	qt.Assert(t, qt.IsNil(r.Watch(pipe[0])))
	qt.Assert(t, qt.IsFalse(readable(t, fd, 0)))
	qt.Assert(t, qt.IsNil(unix.Close(pipe[1])))
	qt.Assert(t, qt.IsTrue(readable(t, fd, patience)))
	_, err := r.Poll(0)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(r.Ready(), pipe[:1]))
	qt.Assert(t, qt.IsNil(r.Unwatch(pipe[0])))
	quiet(t, r, fd)

	done := make(chan error, 1)
	go func() { done <- r.run(t.Context(), func() error { return io.EOF }) }()
	qt.Assert(t, qt.IsTrue(readable(t, fd, patience)))
	quiet(t, r, fd)
	qt.Check(t, qt.Equals(testwait.Receive(t, "the job", done), io.EOF))
}

// TestFdIdle: a ring with connections on which nothing happens makes nobody look.
func TestFdIdle(t *testing.T) {
	for _, mode := range []ReceiveMode{ReceiveAuto, ReceiveCopied} {
		r, fd := exposed(t, func(o *Options) { o.Receive = mode })
		for range 10 {
			conn, peer := tcpPair(t)
			defer unix.Close(conn)
			qt.Assert(t, qt.IsNil(r.Register(conn)))
			_, err := peer.Write([]byte("something"))
			qt.Assert(t, qt.IsNil(err))
		}
		for got := 0; got < 10; {
			qt.Assert(t, qt.IsTrue(readable(t, fd, patience)))
			got += len(payloads(t, r))
		}
		quiet(t, r, fd)
		before := r.count().Syscalls
		qt.Check(t, qt.IsFalse(readable(t, fd, 2500)), qt.Commentf("%v", mode))
		qt.Check(t, qt.Equals(r.count().Syscalls, before))
		r.conns.All(func(c *conn) { qt.Check(t, qt.IsNil(r.Unregister(c.in.FD))) })
	}
}

// TestFdSlowReader: what a peer has not taken follows, although nobody calls Poll
// but when the descriptor says so.
func TestFdSlowReader(t *testing.T) {
	r, fd := exposed(t)
	conn, peer := tcpPair(t)
	defer unix.Close(conn)
	qt.Assert(t, qt.IsNil(r.Register(conn)))
	qt.Assert(t, qt.IsNil(unix.SetsockoptInt(conn, unix.SOL_SOCKET, unix.SO_SNDBUF, 4096)))
	const size = 400_000
	for sent := 0; sent < size; sent += 2000 {
		put(r, conn, make([]byte, 2000))
		qt.Assert(t, qt.IsNil(r.TxSync()))
	}
	qt.Assert(t, qt.IsTrue(r.TxQueued(conn) > 0))
	done := make(chan error, 1)
	go func() {
		_, err := io.ReadFull(peer, make([]byte, size))
		done <- err
		r.Wake()
	}()
	for len(done) == 0 {
		qt.Assert(t, qt.IsTrue(readable(t, fd, patience)))
		_, err := r.Poll(0)
		qt.Assert(t, qt.IsNil(err))
	}
	qt.Check(t, qt.IsNil(<-done))
	qt.Assert(t, qt.IsNil(r.Unregister(conn)))
}

// TestFdStress: peers send at random, and now and then go on only when all was
// answered; the application waits for the descriptor alone, takes some of the slots
// that are there, and mixes the calls. One lost wake-up and it stands still.
func TestFdStress(t *testing.T) {
	const peers, rounds = 8, 3000
	for _, mode := range []ReceiveMode{ReceiveAuto, ReceiveCopied} {
		t.Run(mode.String(), func(t *testing.T) {
			rng := seed.New(t)
			r, fd := exposed(t, func(o *Options) { o.Receive = mode })
			var wg sync.WaitGroup
			for range peers {
				conn, peer := tcpPair(t)
				qt.Assert(t, qt.IsNil(r.Register(conn)))
				wg.Add(1)
				rng := rand.New(rand.NewPCG(rng.Uint64(), 0))
				go func() {
					defer wg.Done()
					qt.Check(t, qt.IsNil(talk(peer, rng, rounds)))
				}()
			}
			go func() { wg.Wait(); r.Wake() }()
			for open := peers; open > 0; {
				qt.Assert(t, qt.IsTrue(readable(t, fd, patience)), qt.Commentf("a wake-up was lost: %+v", r.count()))
				open -= serveSome(t, r, rng)
			}
			wg.Wait()
		})
	}
}

// talk sends pieces, at times as many as possible at once and at times one by one,
// and expects each byte back before it ends.
func talk(c *net.TCPConn, rng *rand.Rand, rounds int) error {
	if err := c.SetDeadline(time.Now().Add(testwait.Patience)); err != nil {
		return err
	}
	owed := 0
	b := make([]byte, 70_000)
	for range rounds {
		n := 1 + rng.IntN(300)
		switch rng.IntN(20) {
		case 0:
			n = 1 + rng.IntN(len(b))
		case 1:
			time.Sleep(time.Duration(rng.IntN(300)) * time.Microsecond)
		}
		if _, err := c.Write(b[:n]); err != nil {
			return err
		}
		if owed += n; owed > len(b)/2 || rng.IntN(3) == 0 {
			if _, err := io.CopyN(io.Discard, c, int64(owed)); err != nil {
				return err
			}
			owed = 0
		}
	}
	_, err := io.CopyN(io.Discard, c, int64(owed))
	if err == nil {
		err = c.CloseWrite()
	}
	return err
}

// serveSome looks once, echoes some of the slots, and returns how many connections
// have ended.
func serveSome(t *testing.T, r *Ring, rng *rand.Rand) (ended int) {
	var err error
	if rng.IntN(4) == 0 {
		_, err = r.RxSync()
	} else {
		_, err = r.Poll(time.Duration(rng.IntN(2)) * time.Microsecond)
	}
	qt.Assert(t, qt.IsNil(err))
	most := rng.IntN(20)
	for seg := range r.Segments() {
		if seg.Closed() {
			qt.Check(t, qt.IsNil(seg.Cause()))
			qt.Assert(t, qt.IsNil(r.CloseAfterSend(seg.Fd())))
			ended++
		} else {
			for seg.Forward(seg.Fd()) != nil {
				qt.Assert(t, qt.IsNil(r.TxSync()))
			}
		}
		if most--; most <= 0 {
			break
		}
	}
	// Without it the peers would wait for us, and we for them.
	if rng.IntN(2) == 0 {
		err = r.TxSync()
	} else {
		_, err = r.Poll(0)
	}
	qt.Assert(t, qt.IsNil(err))
	return ended
}
