package kv

import (
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

	"github.com/pastenet/paste/internal/bench"
	"github.com/pastenet/paste/internal/loadgen"
)

func TestEngines(t *testing.T) {
	for _, kind := range []string{Bbolt, Pebble} {
		dir := t.TempDir()
		e, err := openEngine(kind, dir)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(e.Put([]byte("a"), []byte("1"))))
		qt.Assert(t, qt.IsNil(e.Put([]byte("b"), []byte("2"))))
		qt.Assert(t, qt.IsNil(e.Commit()))
		qt.Assert(t, qt.IsNil(e.Delete([]byte("a"))))
		qt.Assert(t, qt.IsNil(e.Commit()))
		qt.Assert(t, qt.IsNil(e.Close()))
		e, err = openEngine(kind, dir)
		qt.Assert(t, qt.IsNil(err))
		v, found, err := e.Get([]byte("x"), []byte("b"))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsTrue(found))
		qt.Assert(t, qt.Equals(string(v), "x2"))
		_, found, err = e.Get(nil, []byte("a"))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsFalse(found))
		qt.Assert(t, qt.IsNil(e.Close()))
	}
	_, err := openEngine("none", t.TempDir())
	qt.Assert(t, qt.IsNotNil(err))
}

// The servers answer an ordinary client and the generator.
func TestServe(t *testing.T) {
	for _, kind := range []string{Bbolt, Pebble, BboltHTTP, PebbleHTTP} {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		qt.Assert(t, qt.IsNil(err))
		addr := netip.MustParseAddrPort(ln.Addr().String())
		ln.Close()
		ctx, cancel := context.WithCancel(context.Background())
		r, w := io.Pipe()
		done := make(chan error, 1)
		go func() { done <- Serve(ctx, []string{kind, addr.String(), t.TempDir()}, w) }()
		line := make([]byte, 100)
		_, err = r.Read(line)
		qt.Assert(t, qt.IsNil(err))
		go io.Copy(io.Discard, r)
		c := &http.Client{Transport: &http.Transport{}}
		do := func(method, key, body string) (int, string) {
			req, err := http.NewRequest(method, fmt.Sprintf("http://%s/k/%s", addr, key), strings.NewReader(body))
			qt.Assert(t, qt.IsNil(err))
			resp, err := c.Do(req)
			qt.Assert(t, qt.IsNil(err))
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			qt.Assert(t, qt.IsNil(err))
			return resp.StatusCode, string(b)
		}
		big := strings.Repeat("0123456789", 20000)
		code, _ := do("PUT", "a", big)
		qt.Assert(t, qt.Equals(code, 204))
		code, b := do("GET", "a", "")
		qt.Assert(t, qt.Equals(code, 200))
		qt.Assert(t, qt.Equals(b, big))
		code, _ = do("DELETE", "a", "")
		qt.Assert(t, qt.Equals(code, 204))
		code, _ = do("GET", "a", "")
		qt.Assert(t, qt.Equals(code, 404))
		c.CloseIdleConnections()
		res, err := loadgen.Run(ctx, loadgen.Config{Addr: addr, Workload: loadgen.KV, Connections: 4, Size: 100, Duration: time.Minute, CPU: -1,
			KV: loadgen.KVConfig{Keys: 200, Preload: true}})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsTrue(res.Acked >= 200), qt.Commentf("%v", res.Acked))
		cancel()
		qt.Assert(t, qt.IsNil(<-done))
		r.Close()
	}
}

func TestCommands(t *testing.T) {
	addr := netip.MustParseAddrPort("10.0.0.1:80")
	cfg := &bench.Config{PoolSize: 7}
	line := func(name string) string { return strings.Join(command(cfg, name, "exe", addr, "nic0", "dir"), " ") }
	qt.Check(t, qt.Equals(line(bench.Paste), "exe serve kv --listen 10.0.0.1:80 --pool dir/pool --pool-size 7 --json --nic nic0"))
	qt.Check(t, qt.Equals(line(Bbolt), "/proc/self/exe kvserver bbolt 10.0.0.1:80 dir"))
	// Nobody's durability is weakened.
	qt.Check(t, qt.StringContains(line(Redis), "--appendonly yes --appendfsync always"))
}
