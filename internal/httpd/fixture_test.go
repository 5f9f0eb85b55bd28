package httpd

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/intake"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/btree"
)

// fixture is a server over a fake ring, on the loopback device.
type fixture struct {
	t     *testing.T
	pool  *pmem.Pool
	rings []*fakeRing
	srv   *Server
	addr  string
	base  int // free frames at the start

	cancel func() // begins the server's end
	stop   func() // waits for it
}

type setup struct {
	cfg      Config
	poolSize int64
	slots    int
	mss      int
}

// serve starts a server.
func serve(t *testing.T, o setup) *fixture {
	t.Helper()
	f := prepare(t, o)
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	f.run(ctx)
	return f
}

// prepare makes a server that listens, and does not run yet.
func prepare(t *testing.T, o setup) *fixture {
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
	if o.cfg.DrainTimeout == 0 {
		o.cfg.DrainTimeout = -1 // most tests leave connections behind
	}
	pool, err := pmem.NewMemory("httpd-test", pmem.Options{Size: o.poolSize, FrameSize: 2048})
	qt.Assert(t, qt.IsNil(err))
	f := &fixture{t: t, pool: pool, cancel: func() {}}
	o.cfg.Rings = max(o.cfg.Rings, 1)
	for range o.cfg.Rings {
		ring := newFakeRing(pool, o.slots, o.mss)
		ring.shared = o.cfg.Rings > 1
		f.rings = append(f.rings, ring)
	}
	o.cfg.Addr = "127.0.0.1:0"
	o.cfg.Logger = slog.New(slog.DiscardHandler)
	f.srv, err = New(o.cfg, pool)
	qt.Assert(t, qt.IsNil(err))
	f.addr, f.base = f.srv.Addr().String(), pool.Free()
	return f
}

// run serves until ctx is done, or stop is called.
func (f *fixture) run(ctx context.Context) {
	done := make(chan error, 1)
	var rings []Ring
	for _, r := range f.rings {
		rings = append(rings, r)
	}
	go func() { done <- f.srv.Run(ctx, rings...) }()
	t, pool := f.t, f.pool
	f.stop = sync.OnceFunc(func() {
		f.cancel()
		qt.Check(t, qt.IsNil(within(done)))
	})
	t.Cleanup(func() {
		f.stop()
		qt.Check(t, qt.Equals(pool.Misuses(), 0))
		// Only the log holds frames now.
		held := pool.Log().Head()
		if n := pool.Log().Next(); n > held {
			qt.Check(t, qt.IsNil(pool.Log().Truncate(n-1)))
		}
		qt.Check(t, qt.Equals(pool.Free()+beside(t, pool), f.base))
		for _, r := range f.rings {
			r.close()
		}
		qt.Check(t, qt.IsNil(pool.Close()))
	})
}

// beside is how many frames what is kept beside the log has.
func beside(t *testing.T, pool *pmem.Pool) (n int) {
	if r, ok := pool.Root(intake.RootName); ok {
		qt.Check(t, qt.IsNil(btree.Walk(pool, r, func(uint32) error { n++; return nil })))
	}
	return n
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

// within is what ch brings; a server that hangs is an error of the test's.
func within(ch <-chan error) error {
	select {
	case err := <-ch:
		return err
	case <-time.After(3 * time.Minute):
		return errors.New("nothing has happened for three minutes")
	}
}
