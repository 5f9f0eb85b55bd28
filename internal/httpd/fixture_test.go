package httpd

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/pmem"
)

// fixture is a server over a fake ring, on the loopback device.
type fixture struct {
	t    *testing.T
	pool *pmem.Pool
	srv  *Server
	addr string
	base int // free frames at the start
	stop func()
}

type setup struct {
	cfg      Config
	poolSize int64
	slots    int
	mss      int
}

func serve(t *testing.T, o setup) *fixture {
	t.Helper()
	if o.poolSize == 0 {
		o.poolSize = 32 << 20
	}
	if o.slots == 0 {
		o.slots = 128
	}
	if o.mss == 0 {
		o.mss = 1448
	}
	pool, err := pmem.NewMemory("httpd-test", pmem.Options{Size: o.poolSize, FrameSize: 2048})
	qt.Assert(t, qt.IsNil(err))
	ring := newFakeRing(pool, o.slots, o.mss)
	o.cfg.Addr = "127.0.0.1:0"
	o.cfg.Logger = slog.New(slog.DiscardHandler)
	srv, err := New(o.cfg, pool)
	qt.Assert(t, qt.IsNil(err))
	f := &fixture{t: t, pool: pool, srv: srv, addr: srv.Addr().String(), base: pool.Free()}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx, ring) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		qt.Check(t, qt.IsNil(<-done))
	})
	t.Cleanup(func() {
		f.stop()
		qt.Check(t, qt.Equals(pool.Misuses(), 0))
		// Only the log holds frames now.
		held := pool.Log().Head()
		if n := pool.Log().Next(); n > held {
			qt.Check(t, qt.IsNil(pool.Log().Truncate(n-1)))
		}
		qt.Check(t, qt.Equals(pool.Free(), f.base))
		ring.close()
		qt.Check(t, qt.IsNil(pool.Close()))
	})
	return f
}

func (f *fixture) dial() *net.TCPConn {
	f.t.Helper()
	c, err := net.Dial("tcp", f.addr)
	qt.Assert(f.t, qt.IsNil(err))
	qt.Assert(f.t, qt.IsNil(c.SetDeadline(time.Now().Add(3*time.Minute))))
	f.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// talk sends in, and returns everything until the server closes.
func (f *fixture) talk(in string) string {
	f.t.Helper()
	c := f.dial()
	go io.WriteString(c, in)
	out, err := io.ReadAll(c)
	qt.Assert(f.t, qt.IsNil(err), qt.Commentf("after %q", out))
	return string(out)
}

// records stops the server and returns the bodies in the log.
func (f *fixture) records() (out []string) {
	f.t.Helper()
	f.stop()
	for r, err := range f.pool.Log().Records() {
		qt.Assert(f.t, qt.IsNil(err))
		qt.Assert(f.t, qt.IsNil(r.Verify()))
		var b strings.Builder
		_, err := r.WriteTo(&b)
		qt.Assert(f.t, qt.IsNil(err))
		out = append(out, b.String())
	}
	return out
}

// eventually waits for a state that the server reaches by itself.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never reached: %s", what)
		}
	}
}
