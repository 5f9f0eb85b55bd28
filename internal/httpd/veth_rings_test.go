package httpd

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// TestVethRings: with two rings on two NIC queues each connection is served by
// the ring that its frames arrive at, and so received in place.
func TestVethRings(t *testing.T) {
	l := netlabtest.New(t, netlab.Config{Prefix: "hs", Queues: 2})
	// After a timeout Linux sends a connection's segments another way, which is
	// another queue here. That is not what is tested.
	err := l.InClient(func() error { return os.WriteFile("/proc/sys/net/core/txrehash", []byte("0"), 0) })
	qt.Assert(t, qt.IsNil(err))
	pool, err := pmem.NewMemory("httpd-veth-test", pmem.Options{Size: 128 << 20})
	qt.Assert(t, qt.IsNil(err))
	defer pool.Close()
	s := &site{t: t, lab: l, pool: pool}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan error, 1), make(chan error, 1)
	go func() {
		done <- l.InServer(func() (err error) {
			cfg := Config{Addr: netip.AddrPortFrom(l.ServerIP4, 0).String(), Persist: PersistNone, Logger: slog.New(slog.DiscardHandler)}
			s.srv, err = New(cfg, pool)
			if err == nil {
				s.port, err = pasteapi.Open(ctx, pasteapi.Options{NIC: l.ServerDev, Pool: pool, Rings: 2, Copybreak: -1})
			}
			if err == nil {
				err = s.port.Steer(s.srv.Addr().Port())
			}
			if ready <- err; err != nil {
				return nil
			}
			return s.srv.Run(ctx, s.port.Ring(0), s.port.Ring(1))
		})
	}()
	qt.Assert(t, qt.IsNil(within(ready)))
	// Connections made before Run are accepted by the first ring.
	_, _, err = put(s.client(), s.url(), 1, 1, false)
	qt.Assert(t, qt.ErrorMatches(err, ".* 200 OK"))
	var wg sync.WaitGroup
	for range 32 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c, err := l.Client.DialContext(ctx, "tcp", s.srv.Addr().String())
			if !qt.Check(t, qt.IsNil(err)) {
				return
			}
			defer c.Close()
			for range 4 {
				_, err := io.WriteString(c, post(strings.Repeat("b", 200_000)))
				qt.Check(t, qt.IsNil(err))
				_, err = c.Read(make([]byte, 4096))
				qt.Check(t, qt.IsNil(err))
			}
		}()
	}
	wg.Wait()
	_, err = New(Config{Addr: s.srv.Addr().String()}, pool)
	qt.Check(t, qt.IsNotNil(err), qt.Commentf("a second server on the address"))
	cancel()
	qt.Check(t, qt.IsNil(within(done)))
	for i := range 2 {
		st := s.port.Ring(i).Stats()
		qt.Check(t, qt.IsTrue(st.SteeredBytes > 1<<20), qt.Commentf("ring %d: %+v", i, st))
		// What comes before the registration, or after a loss, is copied.
		qt.Check(t, qt.IsTrue((st.CopiedBytes+st.ReadBytes)*3 < st.SteeredBytes), qt.Commentf("ring %d: %+v", i, st))
	}
	qt.Check(t, qt.IsNil(l.InServer(s.port.Close)))
}
