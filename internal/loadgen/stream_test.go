package loadgen

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// serveRaw hands each connection to handle, and returns what has come in all.
func serveRaw(t *testing.T, handle func(c net.Conn) int64) (addr netip.AddrPort, received func() int64) {
	t.Helper()
	l, addr := listen(t)
	var wg sync.WaitGroup
	var total atomic.Int64
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Add(1)
			go func() {
				defer wg.Done()
				defer c.Close()
				total.Add(handle(c))
			}()
		}
	}()
	return addr, func() int64 {
		l.Close()
		wg.Wait()
		return total.Load()
	}
}

func TestEcho(t *testing.T) {
	for _, e := range engines {
		for _, size := range []int{1, IDSize + 1, 100_000} {
			t.Run(fmt.Sprintf("%s/%d", e, size), func(t *testing.T) {
				addr, received := serveRaw(t, func(c net.Conn) int64 {
					n, _ := io.Copy(c, c) // the generator hangs up at any time
					return n
				})
				ctx, cfg, cancel := until(Config{Addr: addr, Workload: Echo, Connections: 4, Size: size, Engine: e}, 100)
				defer cancel()
				r, err := Run(ctx, cfg)
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.IsTrue(r.Acked >= 100), qt.Commentf("%d", r.Acked))
				qt.Check(t, qt.Equals(r.Errors, 0))
				n := received()
				qt.Check(t, qt.IsTrue(n >= int64(r.Acked)*int64(size)), qt.Commentf("%d bytes sent back", n))
			})
		}
	}
}

func TestWrongEchoIsAnError(t *testing.T) {
	for _, e := range engines {
		for what, change := range map[string]func(b []byte) []byte{
			"differs": func(b []byte) []byte { b[3]++; return b },
			"behind":  func(b []byte) []byte { return append(b, 'x') },
		} {
			addr, _ := serveRaw(t, func(c net.Conn) int64 {
				b := make([]byte, IDSize)
				for {
					if _, err := io.ReadFull(c, b); err != nil {
						return 0
					}
					if _, err := c.Write(change(b)); err != nil {
						return 0
					}
				}
			})
			_, err := Run(context.Background(), Config{Addr: addr, Workload: Echo, Connections: 1, Size: IDSize, Duration: time.Hour, CPU: -1, Engine: e})
			qt.Check(t, qt.ErrorIs(err, ErrLost))
			qt.Check(t, qt.ErrorMatches(err, ".*"+what+".*"))
		}
	}
}

// What a sink is credited with has arrived, whatever the sizes of the writes.
func TestSink(t *testing.T) {
	for _, size := range []int{1000, 3 << 20} {
		addr, received := serveRaw(t, func(c net.Conn) int64 {
			n, _ := io.Copy(io.Discard, c)
			return n
		})
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		live := new(Live)
		go func() {
			for live.Requests.Load() < 100 && ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		r, err := Run(ctx, Config{Addr: addr, Workload: Sink, Connections: 3, Size: size, Duration: time.Hour, CPU: -1, Live: live})
		cancel()
		qt.Assert(t, qt.IsNil(err))
		n := received()
		qt.Check(t, qt.IsTrue(r.Requests > 0), qt.Commentf("%+v", r))
		qt.Check(t, qt.IsTrue(int64(r.Requests)*int64(size) <= n), qt.Commentf("%d writes of %d bytes, %d bytes arrived", r.Requests, size, n))
		qt.Check(t, qt.IsTrue(r.Acked >= 100), qt.Commentf("%+v", r))
	}
}

func TestSinkHasNoRate(t *testing.T) {
	_, err := Run(context.Background(), Config{Workload: Sink, Connections: 1, Size: 1, Rate: 1, Duration: time.Second})
	qt.Check(t, qt.ErrorMatches(err, ".*no rate for a sink"))
}
