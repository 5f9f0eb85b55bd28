package loadgen

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var engines = []Engine{IOUring, Epoll, Spin}

func listen(t *testing.T) (net.Listener, netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { l.Close() })
	return l, l.Addr().(*net.TCPAddr).AddrPort()
}

// serveHTTP runs a net/http server, an implementation that isn't ours.
func serveHTTP(t *testing.T, h http.HandlerFunc) netip.AddrPort {
	t.Helper()
	l, addr := listen(t)
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return addr
}

// until ends a run as soon as n requests were acknowledged.
func until(cfg Config, n uint64) (context.Context, Config, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	inner := cfg.OnAck
	var seen uint64
	cfg.OnAck = func(conn int, i uint64) {
		if inner != nil {
			inner(conn, i)
		}
		if seen++; seen == n {
			cancel()
		}
	}
	cfg.Duration = time.Hour
	cfg.CPU = -1
	return ctx, cfg, cancel
}

func TestRPC(t *testing.T) {
	body := strings.Repeat("x", 10_000) // several reads
	addr := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10000")
		_, _ = io.WriteString(w, body)
	})
	for _, e := range engines {
		t.Run(string(e), func(t *testing.T) {
			ctx, cfg, cancel := until(Config{Addr: addr, Workload: RPC, Connections: 10, Size: len(body), Engine: e}, 500)
			defer cancel()
			r, err := Run(ctx, cfg)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.IsTrue(r.Requests >= 500), qt.Commentf("%v", r.Requests))
			qt.Check(t, qt.Equals(r.Acked, r.Requests))
			qt.Check(t, qt.Equals(r.Errors, 0))
			qt.Check(t, qt.Equals(r.Engine, e))
			qt.Check(t, qt.Equals(uint64(r.Latency.TotalCount()), r.Requests))
			qt.Check(t, qt.IsTrue(r.RPS() > 0 && r.Busy > 0 && r.Syscalls > 0), qt.Commentf("%v, %v", r.Busy, r.Syscalls))
		})
	}
}

func TestWALAcknowledgesWhatWasReceived(t *testing.T) {
	for _, e := range engines {
		for _, size := range []int{IDSize, 1000, 3 << 20} {
			t.Run(fmt.Sprintf("%s/%d", e, size), func(t *testing.T) {
				type key struct {
					conn int
					n    uint64
				}
				var mu sync.Mutex
				got := map[key]bool{}
				addr := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
					b, err := io.ReadAll(r.Body)
					if err != nil {
						return // the generator stops in the middle
					}
					run, conn, n, err := ParseBody(b)
					qt.Check(t, qt.IsNil(err))
					qt.Check(t, qt.Equals(run, 77))
					qt.Check(t, qt.Equals(len(b), size))
					mu.Lock()
					got[key{conn, n}] = true
					mu.Unlock()
					w.Header().Set("Content-Length", "0")
				})
				var acked []key
				ctx, cfg, cancel := until(Config{Addr: addr, Workload: WAL, Connections: 4, Size: size, Engine: e, Run: 77,
					OnAck: func(conn int, n uint64) { acked = append(acked, key{conn, n}) }}, 40)
				defer cancel()
				_, err := Run(ctx, cfg)
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.IsTrue(len(acked) >= 40), qt.Commentf("%v", len(acked)))
				mu.Lock()
				defer mu.Unlock()
				seen := map[key]bool{}
				for _, k := range acked {
					qt.Check(t, qt.IsTrue(got[k]), qt.Commentf("%v", k))
					qt.Check(t, qt.IsFalse(seen[k]), qt.Commentf("%v twice", k))
					seen[k] = true
				}
			})
		}
	}
}

// rawServer answers each request, given as its text up to the empty line, as fn
// says; fn reports whether the connection goes on.
func rawServer(t *testing.T, fn func(c net.Conn) bool) netip.AddrPort {
	t.Helper()
	l, addr := listen(t)
	var wg sync.WaitGroup
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
				r := bufio.NewReader(c)
				for {
					line, err := r.ReadString('\n')
					if err != nil || line == "\r\n" && !fn(c) {
						return
					}
				}
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return addr
}

func TestReconnect(t *testing.T) {
	for _, e := range engines {
		t.Run(string(e), func(t *testing.T) {
			var count atomic.Int64
			addr := rawServer(t, func(c net.Conn) bool {
				_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				return err == nil && count.Add(1)%5 != 0 // every fifth answer is the last
			})
			ctx, cfg, cancel := until(Config{Addr: addr, Workload: RPC, Connections: 3, Size: 2, Engine: e, Reconnect: true}, 60)
			defer cancel()
			r, err := Run(ctx, cfg)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.IsTrue(r.Requests >= 60), qt.Commentf("%v", r.Requests))
			qt.Check(t, qt.IsTrue(r.Reconnects >= 5), qt.Commentf("%d", r.Reconnects))
			qt.Check(t, qt.IsTrue(r.Errors >= r.Reconnects), qt.Commentf("%v, %v", r.Errors, r.Reconnects))
		})
	}
}

func TestServerComesLate(t *testing.T) {
	l, addr := listen(t)
	l.Close() // the port is free now
	var once sync.Once
	live := new(Live)
	ctx, cfg, cancel := until(Config{Addr: addr, Workload: RPC, Connections: 2, Size: -1, Reconnect: true, Live: live}, 10)
	defer cancel()
	errc := make(chan error, 1)
	go func() {
		_, err := Run(ctx, cfg)
		errc <- err
	}()
	once.Do(func() {
		l2, err := net.Listen("tcp", addr.String())
		qt.Assert(t, qt.IsNil(err))
		s := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Serve(l2) }()
		t.Cleanup(func() { s.Close(); <-done })
	})
	qt.Assert(t, qt.IsNil(<-errc))
	qt.Check(t, qt.IsTrue(live.Requests.Load() >= 10), qt.Commentf("%v", live.Requests.Load()))
	qt.Check(t, qt.Equals(live.Connected.Load(), 0))
}

func TestFailures(t *testing.T) {
	for name, answer := range map[string]string{
		"eof":       "",
		"status":    "ICY 200 OK\r\nContent-Length: 0\r\n\r\n",
		"size":      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
		"behind":    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore",
		"no length": "HTTP/1.1 200 OK\r\n\r\n",
	} {
		for _, e := range engines {
			t.Run(name+"/"+string(e), func(t *testing.T) {
				addr := rawServer(t, func(c net.Conn) bool { _, _ = io.WriteString(c, answer); return false })
				_, err := Run(context.Background(), Config{Addr: addr, Workload: RPC, Connections: 1, Size: 2,
					Duration: time.Hour, CPU: -1, Engine: e})
				qt.Check(t, qt.ErrorIs(err, ErrLost))
			})
		}
	}
	l, addr := listen(t)
	l.Close()
	_, err := Run(context.Background(), Config{Addr: addr, Workload: RPC, Connections: 1, Duration: time.Hour, CPU: -1})
	qt.Check(t, qt.ErrorMatches(err, ".*connection 1 of 1 to .*refused"))
	_, err = Run(context.Background(), Config{Workload: "x", Connections: 1, Duration: 1})
	qt.Check(t, qt.ErrorMatches(err, ".*unknown workload.*"))
}

func TestNon2xxIsNotAcknowledged(t *testing.T) {
	live := new(Live)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var count int
	addr := rawServer(t, func(c net.Conn) bool {
		if count++; count == 20 {
			cancel()
		}
		_, err := io.WriteString(c, "HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 2\r\n\r\nno")
		return err == nil
	})
	r, err := Run(ctx, Config{Addr: addr, Workload: RPC, Connections: 1, Size: 2, Duration: time.Hour, CPU: -1, Live: live})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(r.Non2xx >= 18), qt.Commentf("%v", r.Non2xx))
	qt.Check(t, qt.Equals(r.Acked+r.Requests+live.Requests.Load(), 0))
}

func TestWarmupIsExcluded(t *testing.T) {
	addr := serveHTTP(t, func(http.ResponseWriter, *http.Request) {})
	r, err := Run(context.Background(), Config{Addr: addr, Workload: RPC, Connections: 1, Size: 0,
		Warmup: 300 * time.Millisecond, Duration: 300 * time.Millisecond, CPU: 0})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(r.Acked > r.Requests), qt.Commentf("%v, %v", r.Acked, r.Requests))
	qt.Check(t, qt.IsTrue(r.Requests > 0), qt.Commentf("%v", r.Requests))
	qt.Check(t, qt.IsTrue(r.Elapsed >= 300*time.Millisecond), qt.Commentf("%v", r.Elapsed))
}

func TestResponseInAnyPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r response
		for range rapid.IntRange(1, 4).Draw(t, "responses") {
			status := rapid.SampledFrom([]int{200, 204, 404, 503}).Draw(t, "status")
			n := rapid.IntRange(0, 300).Draw(t, "length")
			s := ""
			if rapid.Bool().Draw(t, "continue") {
				s = "HTTP/1.1 100 Continue\r\n\r\n"
			}
			s += fmt.Sprintf("HTTP/1.1 %d Whatever\r\ncOnTent-length:  %d\r\nServer: x\r\n\r\n%s", status, n, strings.Repeat("b", n))
			for len(s) > 0 {
				k := rapid.IntRange(1, len(s)).Draw(t, "piece")
				done, err := r.feed([]byte(s[:k]))
				if err != nil {
					t.Fatal(err)
				}
				s = s[k:]
				if done != (len(s) == 0) {
					t.Fatalf("done %v with %d bytes to go", done, len(s))
				}
			}
			if r.status != status || r.length != int64(n) {
				t.Fatalf("got %d, %d bytes; want %d, %d", r.status, r.length, status, n)
			}
		}
	})
}

func TestBodyIdentity(t *testing.T) {
	b := make([]byte, 100)
	FillBody(b, 1, 2, 3)
	run, conn, n, err := ParseBody(b)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(run, 1))
	qt.Check(t, qt.Equals(conn, 2))
	qt.Check(t, qt.Equals(n, 3))
	b[99]++
	_, _, _, err = ParseBody(b)
	qt.Check(t, qt.ErrorMatches(err, ".*wrong at byte 99"))
	b[3] = 'z'
	_, _, _, err = ParseBody(b)
	qt.Check(t, qt.ErrorMatches(err, ".*not with an identity"))
	_, _, _, err = ParseBody(b[:31])
	qt.Check(t, qt.IsNotNil(err))
}
