package httpd

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/internal/ringserve"
	"github.com/pastenet/paste/pmem"
)

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
	qt.Assert(t, qt.IsNil(cfg.fitBody(pool)))
	l := newLoop(&Server{cfg: cfg, pool: pool, fd: -1, loops: make([]*loop, 1), maxFrames: inputFrames(&cfg, pool)}, 0, ring, newReplies(64))
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
	l.Syncs++ // nothing is written meanwhile
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

// The limits: progress counts, and so does its size.

func TestLimitSteadyBody(t *testing.T) {
	l, _, c := clocked(t)
	l.timer.rate = -1
	l.feed(t, c, halfBody)
	for range 20 {
		l.pass(t, DefaultStallTimeout-2*time.Second)
		qt.Assert(t, qt.Equals(c.phase, serving))
		l.feed(t, c, strings.Repeat("b", ringserve.MinProgress))
	}
	for range 3 {
		l.pass(t, DefaultStallTimeout/3)
		l.feed(t, c, "b")
	}
	l.pass(t, 2*time.Second)
	qt.Assert(t, qt.Equals(c.phase, flushing))
}

// A body that makes progress all the time, and never comes to its end, is cut off
// when it has been slower than BodyRate for StallTimeout.
func TestLimitBodyRate(t *testing.T) {
	for rate, want := range map[int64]phase{DefaultBodyRate - 50: flushing, DefaultBodyRate + 50: serving} {
		l, _, c := clocked(t)
		l.feed(t, c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n")
		for range 20 * 60 {
			if c.phase == serving {
				l.feed(t, c, strings.Repeat("b", int(rate)))
			}
			l.pass(t, time.Second)
		}
		qt.Check(t, qt.Equals(c.phase, want), qt.Commentf("%d bytes a second", rate))
	}
}

func TestLimitRequestsNowAndThen(t *testing.T) {
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
}

func TestLimitSlowReader(t *testing.T) {
	l, ring, c := clocked(t)
	l.feed(t, c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	queue := &ring.conns[c.fd].queue
	*queue = make([]byte, 20*ringserve.MinProgress)
	c.out.Written += 20 * ringserve.MinProgress
	for range 10 {
		l.pass(t, DefaultStallTimeout-2*time.Second)
		qt.Assert(t, qt.Equals(c.phase, serving))
		*queue = (*queue)[ringserve.MinProgress:]
	}
	l.pass(t, time.Second)
	*queue = append(*queue, make([]byte, 5)...) // another reply is no progress
	c.out.Written += 5
	l.pass(t, DefaultStallTimeout/2)
	*queue = (*queue)[1:]
	l.pass(t, DefaultStallTimeout/2)
	qt.Assert(t, qt.Equals(c.phase, serving))
	l.pass(t, 3*time.Second)
	qt.Assert(t, qt.Equals(c.phase, dead))
}

func TestLimitGreedyReader(t *testing.T) {
	l, ring, c := clocked(t)
	queue := &ring.conns[c.fd].queue
	for range 200 {
		*queue = (*queue)[:max(len(*queue)-ringserve.MinProgress, 0)]
		l.feed(t, c, strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 50))
		qt.Assert(t, qt.IsNil(l.Push()))
		l.pass(t, time.Second)
		qt.Assert(t, qt.Equals(c.phase, serving))
	}
	l.pass(t, DefaultStallTimeout+2*time.Second)
	qt.Assert(t, qt.Equals(c.phase, dead))
}

func TestLimitIdleWhenAllIsRead(t *testing.T) {
	l, ring, c := clocked(t)
	l.feed(t, c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	queue := &ring.conns[c.fd].queue
	c.out.Written += 10 * ringserve.MinProgress
	for i := range 10 {
		*queue = make([]byte, (10-i)*ringserve.MinProgress)
		l.pass(t, DefaultStallTimeout/2)
	}
	*queue = nil
	l.pass(t, DefaultIdleTimeout-2*time.Second)
	qt.Assert(t, qt.Equals(c.phase, serving))
	l.pass(t, 4*time.Second)
	qt.Assert(t, qt.Equals(c.phase, flushing))
}

func TestLimitLastReply(t *testing.T) {
	l, ring, c := clocked(t)
	queue := &ring.conns[c.fd].queue
	*queue = make([]byte, 10*ringserve.MinProgress)
	c.out.Written += 10 * ringserve.MinProgress
	l.hangUp(c)
	for range 9 {
		qt.Assert(t, qt.IsFalse(l.mayGo(c)))
		l.timer.now += DefaultStallTimeout - time.Second
		qt.Assert(t, qt.IsFalse(l.mayGo(c)))
		*queue = (*queue)[ringserve.MinProgress:]
	}
	qt.Assert(t, qt.IsFalse(l.mayGo(c)))
	l.timer.now += DefaultStallTimeout + time.Second
	qt.Assert(t, qt.IsTrue(l.mayGo(c)))
}

func TestLimitStandStill(t *testing.T) {
	l, _, c := clocked(t)
	l.timer.last = l.timer.last.Add(-time.Hour)
	l.timer.advance()
	qt.Assert(t, qt.IsNil(l.expire()))
	qt.Assert(t, qt.Equals(c.phase, serving))
}

func TestLimitNone(t *testing.T) {
	l, _, c := clocked(t)
	cfg := Config{HeaderTimeout: -1, IdleTimeout: -1, StallTimeout: -1}
	qt.Assert(t, qt.IsNil(cfg.fill()))
	l.timer = newTimer(&cfg)
	l.pass(t, time.Hour)
	qt.Assert(t, qt.Equals(c.phase, serving))
	qt.Assert(t, qt.Equals(l.pollTimeout(), -1))
}
