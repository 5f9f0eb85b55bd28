package gnetserver

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/contender"
	"github.com/pastenet/paste/internal/loadgen"
	"github.com/pastenet/paste/pmem"
)

// start serves until the test ends, or stop is called.
func start(t *testing.T, cfg contender.Config) (addr netip.AddrPort, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	addr = netip.MustParseAddrPort(ln.Addr().String())
	qt.Assert(t, qt.IsNil(ln.Close()))
	ready := make(chan struct{})
	cfg.Kind, cfg.Addr, cfg.Other, cfg.Ready = Kind, addr, Run, func(netip.AddrPort) { close(ready) }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- contender.Run(ctx, cfg) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			qt.Check(t, qt.IsNil(<-done))
		}
	}
	t.Cleanup(stop)
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	return addr, stop
}

// An ordinary client is answered, and what the generator was told is stored is in the
// log as it was sent.
func TestServes(t *testing.T) {
	pool, err := pmem.NewMemory("gnet-test", pmem.Options{Size: 64 << 20})
	qt.Assert(t, qt.IsNil(err))
	defer pool.Close()
	addr, stop := start(t, contender.Config{ResponseBytes: 100, Pool: pool})

	c := &http.Client{Transport: &http.Transport{}}
	defer c.CloseIdleConnections()
	resp, err := c.Get(fmt.Sprintf("http://%s/", addr))
	qt.Assert(t, qt.IsNil(err))
	b, err := io.ReadAll(resp.Body)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(b), strings.Repeat("x", 100)))
	big := bytes.Repeat([]byte("0123456789"), 50_000)
	resp, err = c.Post(fmt.Sprintf("http://%s/", addr), "", bytes.NewReader(big))
	qt.Assert(t, qt.IsNil(err))
	resp.Body.Close()
	qt.Check(t, qt.Equals(resp.StatusCode, 200))

	// Not so much that the log wraps.
	ctx, enough := context.WithTimeout(context.Background(), 3*time.Minute)
	defer enough()
	acked := 0
	res, err := loadgen.Run(ctx, loadgen.Config{Addr: addr, Workload: loadgen.WAL, Connections: 10, Size: 500, Duration: time.Hour, CPU: -1,
		OnAck: func(int, uint64) {
			if acked++; acked == 2000 {
				enough()
			}
		}})
	qt.Assert(t, qt.IsNil(err))
	stop()
	records, whole := uint64(0), false
	for rec, err := range pool.Log().Records() {
		qt.Assert(t, qt.IsNil(err))
		var body bytes.Buffer
		_, err = rec.WriteTo(&body)
		qt.Assert(t, qt.IsNil(err))
		if rec.Length == int64(len(big)) {
			whole = bytes.Equal(body.Bytes(), big)
			continue
		}
		_, _, _, err := loadgen.ParseBody(body.Bytes())
		qt.Assert(t, qt.IsNil(err))
		records++
	}
	qt.Check(t, qt.Equals(whole, true))
	qt.Check(t, qt.IsTrue(res.Acked >= 2000 && records >= res.Acked), qt.Commentf("%d acknowledged, %d in the log", res.Acked, records))
}

func TestAddressInUse(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	defer ln.Close()
	err = contender.Run(context.Background(), contender.Config{Kind: Kind, Addr: netip.MustParseAddrPort(ln.Addr().String()), Other: Run})
	qt.Check(t, qt.ErrorMatches(err, "serve gnet: run the event loop: .*address already in use.*"))
}
