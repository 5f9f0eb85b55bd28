package httpd

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

const halfBody = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"

// TestVethSlowClients: clients that keep the server waiting are sent away, in
// whatever way they do it, and what they held is free again.
func TestVethSlowClients(t *testing.T) {
	l := newLab(t)
	limit := time.Second
	s := open(t, l, l.ServerDev, l.ServerIP4, Config{
		ResponseBytes: 100_000, HeaderTimeout: limit, IdleTimeout: limit, StallTimeout: limit,
	}, 64<<20)
	for _, tc := range []struct{ name, in, out string }{
		{"says nothing", "", ""},
		{"half a header", "GET / HTTP/1.1\r\nHost", "HTTP/1.1 408 "},
		{"half a body", halfBody + strings.Repeat("b", 20_000), "HTTP/1.1 408 "},
		{"half a chunked body", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n100\r\nb", "HTTP/1.1 408 "},
		{"waits for nothing", post("x"), created(1)},
		{"half a second header", post("x") + "GET / HT", created(2) + "HTTP/1.1 408 "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := s.dial()
			_, err := io.WriteString(c, tc.in)
			qt.Assert(t, qt.IsNil(err))
			out, err := io.ReadAll(c)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.Equals(string(out[:min(len(out), len(tc.out))]), tc.out))
			qt.Assert(t, qt.Equals(strings.Contains(string(out), " 408 "), strings.Contains(tc.out, " 408 ")))
		})
	}
	t.Run("a byte now and then", func(t *testing.T) {
		c := s.dial()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for _, b := range []byte("GET / HTTP/1.1\r\nHost: " + strings.Repeat("x", 1<<20)) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		}()
		io.Copy(io.Discard, c) // ends with an end of stream or with a reset
		c.Close()
		<-done
	})
	t.Run("many that do not read", func(t *testing.T) {
		gets := strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 35)
		for range 20 {
			c := s.dial()
			qt.Assert(t, qt.IsNil(c.SetReadBuffer(4096)))
			_, err := io.WriteString(c, gets) // 3.5 MB of answers
			qt.Assert(t, qt.IsNil(err))
		}
		eventually(t, "all are closed", func() bool { return s.srv.Stats().Connections == 0 })
	})
	t.Run("many with half a request", func(t *testing.T) {
		for range 500 {
			_, err := io.WriteString(s.dial(), halfBody+strings.Repeat("b", 60_000))
			qt.Assert(t, qt.IsNil(err))
		}
		eventually(t, "all are closed", func() bool { return s.srv.Stats().Connections == 0 })
		// The rings and the NIC have theirs; the bodies would hold 20000.
		used := int(s.pool.Frames()) - s.pool.Free()
		qt.Check(t, qt.IsTrue(used < 10_000), qt.Commentf("%d frames", used))
	})
	qt.Assert(t, qt.IsTrue(s.srv.Stats().TimedOut >= 527), qt.Commentf("%+v", s.srv.Stats()))
	_, _, err := put(s.client(), s.url(), 100, 1, false)
	qt.Assert(t, qt.IsNil(err))
}

// clocked is a loop over a fake ring whose clock the test moves.
func clocked(t *testing.T) (*loop, *fakeRing, *conn) {
	pool, err := pmem.NewMemory("httpd-test", pmem.Options{Size: 32 << 20, FrameSize: 2048})
	qt.Assert(t, qt.IsNil(err))
	ring := newFakeRing(pool, 64, 1448)
	t.Cleanup(func() {
		ring.close()
		qt.Check(t, qt.IsNil(pool.Close()))
	})
	cfg := Config{Logger: slog.New(slog.DiscardHandler)}
	qt.Assert(t, qt.IsNil(cfg.fill()))
	l := newLoop(&Server{cfg: cfg, pool: pool, fd: -1, loops: make([]*loop, 1)}, 0, ring, newReplies(64))
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	for err == nil { // what is sent stays in the ring's queue, for the test to take it
		_, err = unix.SendmsgN(fds[0], make([]byte, 4096), nil, nil, unix.MSG_DONTWAIT)
	}
	qt.Assert(t, qt.IsNil(ring.Register(fds[0])))
	return l, ring, l.newConn(fds[0])
}

// pass moves the clock in steps of a second.
func (l *loop) pass(t *testing.T, d time.Duration) {
	l.syncs++ // nothing is written meanwhile
	for end := l.timer.now + d; l.timer.now < end; {
		l.timer.now += time.Second
		qt.Assert(t, qt.IsNil(l.expire()))
	}
}

func (l *loop) feed(t *testing.T, c *conn, in string) {
	seg := segment{payload: []byte(in), slot: l.rx.Slot(0), doff: fakeDoff}
	l.s.cfg.Persist = PersistNone
	qt.Assert(t, qt.IsNil(l.input(c, &seg)))
}

// TestLimits: progress counts, and so does its size.
func TestLimits(t *testing.T) {
	t.Run("steady body", func(t *testing.T) {
		l, _, c := clocked(t)
		l.feed(t, c, halfBody)
		for range 20 {
			l.pass(t, DefaultStallTimeout-2*time.Second)
			qt.Assert(t, qt.Equals(c.phase, serving))
			l.feed(t, c, strings.Repeat("b", minProgress))
		}
		for range 3 {
			l.pass(t, DefaultStallTimeout/3)
			l.feed(t, c, "b")
		}
		l.pass(t, 2*time.Second)
		qt.Assert(t, qt.Equals(c.phase, flushing))
	})
	t.Run("requests now and then", func(t *testing.T) {
		l, _, c := clocked(t)
		l.pass(t, DefaultHeaderTimeout-2*time.Second)
		for range 5 {
			l.feed(t, c, "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n")
			l.pass(t, DefaultHeaderTimeout-2*time.Second)
			l.feed(t, c, "Host: x\r\n\r\n")
			l.pass(t, DefaultIdleTimeout-2*time.Second)
			qt.Assert(t, qt.Equals(c.phase, serving))
		}
		l.pass(t, 4*time.Second)
		qt.Assert(t, qt.Equals(c.phase, flushing))
	})
	t.Run("slow reader", func(t *testing.T) {
		l, ring, c := clocked(t)
		l.feed(t, c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		queue := &ring.conns[c.fd].queue
		*queue = make([]byte, 20*minProgress)
		c.written += 20 * minProgress
		for range 10 {
			l.pass(t, DefaultStallTimeout-2*time.Second)
			qt.Assert(t, qt.Equals(c.phase, serving))
			*queue = (*queue)[minProgress:]
		}
		l.pass(t, time.Second)
		*queue = append(*queue, make([]byte, 5)...) // another reply is no progress
		c.written += 5
		l.pass(t, DefaultStallTimeout/2)
		*queue = (*queue)[1:]
		l.pass(t, DefaultStallTimeout/2)
		qt.Assert(t, qt.Equals(c.phase, serving))
		l.pass(t, 3*time.Second)
		qt.Assert(t, qt.Equals(c.phase, dead))
	})
	t.Run("slow reader who asks for more than it reads", func(t *testing.T) {
		l, ring, c := clocked(t)
		queue := &ring.conns[c.fd].queue
		for range 200 {
			*queue = (*queue)[:max(len(*queue)-minProgress, 0)]
			l.feed(t, c, strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 50))
			qt.Assert(t, qt.IsNil(l.push()))
			l.pass(t, time.Second)
			qt.Assert(t, qt.Equals(c.phase, serving))
		}
		l.pass(t, DefaultStallTimeout+2*time.Second)
		qt.Assert(t, qt.Equals(c.phase, dead))
	})
	t.Run("idle only when all is read", func(t *testing.T) {
		l, ring, c := clocked(t)
		l.feed(t, c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		queue := &ring.conns[c.fd].queue
		c.written += 10 * minProgress
		for i := range 10 {
			*queue = make([]byte, (10-i)*minProgress)
			l.pass(t, DefaultStallTimeout/2)
		}
		*queue = nil
		l.pass(t, DefaultIdleTimeout-2*time.Second)
		qt.Assert(t, qt.Equals(c.phase, serving))
		l.pass(t, 4*time.Second)
		qt.Assert(t, qt.Equals(c.phase, flushing))
	})
	t.Run("last reply, read slowly", func(t *testing.T) {
		l, ring, c := clocked(t)
		queue := &ring.conns[c.fd].queue
		*queue = make([]byte, 10*minProgress)
		c.written += 10 * minProgress
		l.hangUp(c)
		for range 9 {
			qt.Assert(t, qt.IsFalse(l.mayGo(c)))
			l.timer.now += DefaultStallTimeout - time.Second
			qt.Assert(t, qt.IsFalse(l.mayGo(c)))
			*queue = (*queue)[minProgress:]
		}
		qt.Assert(t, qt.IsFalse(l.mayGo(c)))
		l.timer.now += DefaultStallTimeout + time.Second
		qt.Assert(t, qt.IsTrue(l.mayGo(c)))
	})
	t.Run("time in which the server stood still", func(t *testing.T) {
		l, _, c := clocked(t)
		l.timer.last = l.timer.last.Add(-time.Hour)
		l.timer.advance()
		qt.Assert(t, qt.IsNil(l.expire()))
		qt.Assert(t, qt.Equals(c.phase, serving))
	})
	t.Run("none", func(t *testing.T) {
		l, _, c := clocked(t)
		cfg := Config{HeaderTimeout: -1, IdleTimeout: -1, StallTimeout: -1}
		qt.Assert(t, qt.IsNil(cfg.fill()))
		l.timer = newTimer(&cfg)
		l.pass(t, time.Hour)
		qt.Assert(t, qt.Equals(c.phase, serving))
		qt.Assert(t, qt.Equals(l.pollTimeout(), -1))
	})
}

// breaker is a Handler that breaks the TX ring.
type breaker struct{ break_ func(x *Exchange) }

func (b *breaker) Begin(*Exchange) bool { return false }
func (b *breaker) Finish(x *Exchange, _ bool) error {
	b.break_(x)
	return nil
}
func (b *breaker) Commit() error           { return nil }
func (b *breaker) MakeRoom() (bool, error) { return false, nil }

// TestBrokenRing: a server whose rings were broken does not go on with
// requests that it may have answered already; it ends, and says why.
func TestBrokenRing(t *testing.T) {
	for name, breakRing := range map[string]func(x *Exchange){
		"rx": func(x *Exchange) { x.l.rx.NumSlots = 7 },
		"tx": func(x *Exchange) { x.l.tx.Head = 1 << 20 },
	} {
		t.Run(name, func(t *testing.T) {
			pool, err := pmem.NewMemory("httpd-test", pmem.Options{Size: 16 << 20})
			qt.Assert(t, qt.IsNil(err))
			defer pool.Close()
			cfg := Config{Addr: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)}
			srv, err := NewWithHandler(cfg, pool, func() Handler {
				return &breaker{func(x *Exchange) {
					// The loop's own writes come after the Handler: break it in the
					// last moment, when the loop has left its batch.
					x.l.handler = &breakAtCommit{breaker: *x.l.handler.(*breaker), x: x, break_: breakRing}
				}}
			})
			qt.Assert(t, qt.IsNil(err))
			port, err := pasteapi.Open(context.Background(), pasteapi.Options{Pool: pool})
			qt.Assert(t, qt.IsNil(err))
			defer port.Close()
			done := make(chan error, 1)
			go func() { done <- srv.Run(context.Background(), port.Ring(0)) }()
			c, err := net.Dial("tcp", srv.Addr().String())
			qt.Assert(t, qt.IsNil(err))
			defer c.Close()
			_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			qt.Assert(t, qt.IsNil(err))
			err = <-done
			qt.Assert(t, qt.ErrorIs(err, pasteapi.ErrRingCorrupt))
			qt.Assert(t, qt.ErrorMatches(err, "poll: "+name+" ring: .*"))
		})
	}
}

type breakAtCommit struct {
	breaker
	x      *Exchange
	break_ func(x *Exchange)
}

func (b *breakAtCommit) Commit() error {
	if b.break_ != nil {
		b.break_(b.x)
		b.break_ = nil
	}
	return nil
}
