package httpd

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// breaker is a Handler that breaks the TX ring.
type breaker struct{ break_ func(x *Exchange) }

func (b *breaker) Begin(*Exchange) bool { return false }
func (b *breaker) Finish(x *Exchange, _ bool) error {
	b.break_(x)
	return nil
}
func (b *breaker) More(*Exchange) error         { return nil }
func (b *breaker) Commit() error                { return nil }
func (b *breaker) Tick() (time.Duration, error) { return -1, nil }
func (b *breaker) MakeRoom() (bool, error)      { return false, nil }

// TestBrokenRing: a server whose rings were broken does not go on with
// requests that it may have answered already; it ends, and says why.
func TestBrokenRing(t *testing.T) {
	for name, breakRing := range map[string]func(x *Exchange){
		"rx": func(x *Exchange) { x.l.rx.NumSlots = 7 },
		"tx": func(x *Exchange) { x.l.ring.TX().Head = 1 << 20 },
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
			err = within(done)
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
