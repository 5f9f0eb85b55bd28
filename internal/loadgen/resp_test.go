package loadgen

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// respServer answers GET and SET, as many as come together at once, and says how many
// came together at most.
func respServer(t *testing.T, value string) (addr netip.AddrPort, most func() int) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	var mu sync.Mutex
	together := 0
	var all sync.WaitGroup
	serve := func(c net.Conn) {
		defer all.Done()
		defer c.Close()
		r, w := bufio.NewReaderSize(c, 1<<20), bufio.NewWriter(c)
		for n := 1; ; n++ {
			var args int
			if _, err := fmt.Fscanf(r, "*%d\r\n", &args); err != nil {
				return
			}
			var words []string
			for range args {
				var size int
				if _, err := fmt.Fscanf(r, "$%d\r\n", &size); err != nil {
					return
				}
				b := make([]byte, size+2)
				if _, err := io.ReadFull(r, b); err != nil {
					return
				}
				words = append(words, string(b[:size]))
			}
			if words[0] == "GET" {
				fmt.Fprintf(w, "$%d\r\n%s\r\n", len(value), value)
			} else {
				_, _ = w.WriteString("+OK\r\n")
			}
			if r.Buffered() == 0 {
				mu.Lock()
				together = max(together, n)
				mu.Unlock()
				n = 0
				_ = w.Flush()
			}
		}
	}
	all.Add(1)
	go func() {
		defer all.Done()
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Add(1)
			go serve(c)
		}
	}()
	t.Cleanup(func() { ln.Close(); all.Wait() })
	return netip.MustParseAddrPort(ln.Addr().String()), func() int { mu.Lock(); defer mu.Unlock(); return together }
}

// With a pipeline a connection sends so many requests at once, each answer counts, and
// each is looked at.
func TestPipeline(t *testing.T) {
	value := strings.Repeat("v", 5000)
	for _, engine := range []Engine{IOUring, Epoll} {
		addr, most := respServer(t, value)
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		acked := 0
		cfg := Config{Addr: addr, Workload: KV, Connections: 3, Size: len(value), Duration: time.Hour, CPU: -1, Engine: engine,
			KV: KVConfig{Keys: 10, PutPercent: 50, RESP: true, Pipeline: 16},
			OnAck: func(int, uint64) {
				if acked++; acked == 480 {
					cancel()
				}
			}}
		res, err := Run(ctx, cfg)
		cancel()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsTrue(res.Acked >= 480 && res.Requests >= 480), qt.Commentf("%+v", res))
		qt.Check(t, qt.Equals(res.Non2xx+res.Errors, 0))
		qt.Check(t, qt.IsTrue(most() > 1 && most() <= 16), qt.Commentf("%d came together", most()))

		cfg.Size = 3 // the answers are longer than the values
		_, err = Run(context.Background(), cfg)
		qt.Check(t, qt.ErrorMatches(err, ".*response of 5000 bytes, want 3"))
	}
	for _, bad := range []Config{
		{KV: KVConfig{Keys: 1, Pipeline: 2}},
		{KV: KVConfig{Keys: 1, RESP: true, Pipeline: maxPipeline + 1}},
		{KV: KVConfig{Keys: 1, RESP: true, Pipeline: 2}, Rate: 10},
	} {
		bad.Workload, bad.Connections, bad.Size, bad.Duration = KV, 1, 1, time.Second
		_, err := Run(context.Background(), bad)
		qt.Check(t, qt.ErrorMatches(err, "load generator: .* at once.*"))
	}
}
