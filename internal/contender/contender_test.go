package contender

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/loadgen"
	"github.com/pastenet/paste/pmem"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newPool(t *testing.T, size int64) *pmem.Pool {
	t.Helper()
	p, err := pmem.NewMemory("contender-test", pmem.Options{Size: size})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(p.Close())) })
	return p
}

// start runs a contender; stop ends it, and must come before the pool is read.
func start(t *testing.T, cfg Config) (addr netip.AddrPort, stats *Stats, stop func()) {
	t.Helper()
	cfg.Addr = netip.MustParseAddrPort("127.0.0.1:0")
	stats = new(Stats)
	cfg.Stats = stats
	ready := make(chan netip.AddrPort, 1)
	cfg.Ready = func(a netip.AddrPort) { ready <- a }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			qt.Check(t, qt.IsNil(<-done))
		})
	}
	t.Cleanup(stop)
	select {
	case addr = <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	return addr, stats, stop
}

func each(t *testing.T, fn func(t *testing.T, k Kind)) {
	for _, k := range Kinds() {
		t.Run(string(k), func(t *testing.T) { fn(t, k) })
	}
}

func client(t *testing.T) *http.Client {
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 3 * time.Minute}
}

func TestBodiesOfAnySizeAreStoredInOrder(t *testing.T) {
	each(t, func(t *testing.T, k Kind) {
		pool := newPool(t, 64<<20)
		addr, stats, stop := start(t, Config{Kind: k, ResponseBytes: 10, Pool: pool})
		c := client(t)
		url := "http://" + addr.String() + "/"
		r := rand.New(rand.NewPCG(1, 2))
		var want [][]byte
		for _, n := range []int{1, 100, 1024, 4095, 4096, 4097, 100_000, 8 << 20, 0} {
			body := make([]byte, n)
			for i := range body {
				body[i] = byte(r.Uint32())
			}
			want = append(want, body)
			req, err := http.NewRequest(http.MethodPut, url, bytes.NewReader(body))
			qt.Assert(t, qt.IsNil(err))
			resp, err := c.Do(req)
			qt.Assert(t, qt.IsNil(err))
			resp.Body.Close()
			qt.Assert(t, qt.Equals(resp.StatusCode, 200))
		}
		// A chunked one, and a GET in between.
		resp, err := c.Get(url)
		qt.Assert(t, qt.IsNil(err))
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(string(b), "xxxxxxxxxx"))
		resp, err = c.Post(url, "", io.MultiReader(bytes.NewReader(want[4]), bytes.NewReader(want[6])))
		qt.Assert(t, qt.IsNil(err))
		resp.Body.Close()
		qt.Assert(t, qt.Equals(resp.StatusCode, 200))
		want = append(want, append(append([]byte(nil), want[4]...), want[6]...))
		stop()
		qt.Check(t, qt.Equals(stats.Requests.Load(), uint64(len(want)+1)))

		i := 0
		for rec, err := range pool.Log().Records() {
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.IsNil(rec.Verify()))
			var got bytes.Buffer
			_, err := rec.WriteTo(&got)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.IsTrue(bytes.Equal(got.Bytes(), want[i])), qt.Commentf("record %d of %d bytes, want %d", i, got.Len(), len(want[i])))
			i++
		}
		qt.Assert(t, qt.Equals(i, len(want)))
		qt.Check(t, qt.Equals(pool.Misuses(), 0))
	})
}

func TestEveryAcknowledgedWriteIsInTheLog(t *testing.T) {
	each(t, func(t *testing.T, k Kind) { everyWriteIsInTheLog(t, Config{Kind: k}, 1000, 3000) })
}

// The same with bodies that fit no frame, in buffers that fit them.
func TestEveryLongWriteIsInTheLog(t *testing.T) {
	each(t, func(t *testing.T, k Kind) {
		everyWriteIsInTheLog(t, Config{Kind: k, MessageBytes: 70_000}, 70_000, 300)
	})
}

func everyWriteIsInTheLog(t *testing.T, cfg Config, size, writes int) {
	// Room for what is written until the load has ended, too: a log that is full drops
	// its older half.
	pool := newPool(t, 512<<20)
	cfg.Pool = pool
	addr, stats, stop := start(t, cfg)
	type key struct {
		conn int
		n    uint64
	}
	acked := map[key]bool{}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	res, err := loadgen.Run(ctx, loadgen.Config{Addr: addr, Workload: loadgen.WAL, Connections: 50, Size: size,
		Duration: time.Hour, CPU: -1, Run: 9,
		OnAck: func(conn int, n uint64) {
			if acked[key{conn, n}] = true; len(acked) == writes {
				cancel()
			}
		}})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(res.Non2xx+res.Errors, 0))
	stop()
	qt.Check(t, qt.IsTrue(stats.Requests.Load() >= uint64(writes)), qt.Commentf("%v", stats.Requests.Load()))
	for rec, err := range pool.Log().Records() {
		qt.Assert(t, qt.IsNil(err))
		var b bytes.Buffer
		_, err := rec.WriteTo(&b)
		qt.Assert(t, qt.IsNil(err))
		run, conn, n, err := loadgen.ParseBody(b.Bytes())
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(run, 9))
		delete(acked, key{conn, n})
	}
	qt.Assert(t, qt.HasLen(acked, 0))
}

func TestAFullLogDropsItsOlderHalf(t *testing.T) {
	each(t, func(t *testing.T, k Kind) {
		pool := newPool(t, 4<<20)
		addr, stats, stop := start(t, Config{Kind: k, Pool: pool})
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		count := 0
		res, err := loadgen.Run(ctx, loadgen.Config{Addr: addr, Workload: loadgen.WAL, Connections: 8, Size: 3000,
			Duration: time.Hour, CPU: -1,
			OnAck: func(int, uint64) {
				if count++; count == 5000 {
					cancel()
				}
			}})
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(res.Non2xx+res.Errors, 0))
		stop()
		qt.Check(t, qt.IsTrue(stats.Truncate.Load() > 0), qt.Commentf("%v", stats.Truncate.Load()))
		last := pool.Log().Next()
		qt.Check(t, qt.IsTrue(last >= 5000), qt.Commentf("%v", last))
		qt.Check(t, qt.Equals(pool.Misuses(), 0))
	})
}

// dial is a raw client.
func dial(t *testing.T, addr netip.AddrPort) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { c.Close() })
	qt.Assert(t, qt.IsNil(c.SetDeadline(time.Now().Add(3*time.Minute))))
	return c, bufio.NewReader(c)
}

func TestPipelinedRequestsKeepTheirOrder(t *testing.T) {
	each(t, func(t *testing.T, k Kind) {
		addr, _, _ := start(t, Config{Kind: k, ResponseBytes: 3, Pool: newPool(t, 16<<20)})
		c, r := dial(t, addr)
		const n = 300
		var in bytes.Buffer
		for range n {
			in.WriteString("GET / HTTP/1.1\r\nHost: x\r\n\r\nPOST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbodyHEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
		}
		go func() { _, _ = c.Write(in.Bytes()) }()
		for i := range n {
			for _, m := range []string{"GET", "POST", "HEAD"} {
				resp, err := http.ReadResponse(r, &http.Request{Method: m})
				qt.Assert(t, qt.IsNil(err), qt.Commentf("request %d %s", i, m))
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.Equals(string(b), map[string]string{"GET": "xxx"}[m]))
			}
		}
	})
}

func TestBadRequestsSufferAlone(t *testing.T) {
	each(t, func(t *testing.T, k Kind) {
		addr, _, _ := start(t, Config{Kind: k, ResponseBytes: 1, Pool: newPool(t, 16<<20)})
		other, or := dial(t, addr)
		for req, status := range map[string]int{
			"nonsense\r\n\r\n":                           400,
			"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n":       405,
			"GET / HTTP/1.1\r\nHost: x\r\n y: z\r\n\r\n": 400,
			fmt.Sprintf("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", bodyLimit+1): 413,
		} {
			c, r := dial(t, addr)
			_, err := io.WriteString(c, req)
			qt.Assert(t, qt.IsNil(err))
			resp, err := http.ReadResponse(r, nil)
			qt.Assert(t, qt.IsNil(err), qt.Commentf("%q", req))
			qt.Check(t, qt.Equals(resp.StatusCode, status))
			_, err = r.ReadByte()
			qt.Check(t, qt.Equals(err, io.EOF))

			_, err = io.WriteString(other, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			qt.Assert(t, qt.IsNil(err))
			resp, err = http.ReadResponse(or, nil)
			qt.Assert(t, qt.IsNil(err))
			_, err = io.ReadAll(resp.Body)
			qt.Assert(t, qt.IsNil(err))
		}
	})
}

func TestHalfCloseAndConnectionClose(t *testing.T) {
	each(t, func(t *testing.T, k Kind) {
		// A response that does not fit the socket's buffers.
		const big = 16 << 20
		addr, _, _ := start(t, Config{Kind: k, ResponseBytes: big})
		for _, header := range []string{"", "Connection: close\r\n"} {
			c, r := dial(t, addr)
			_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n"+header+"\r\n")
			qt.Assert(t, qt.IsNil(err))
			if header == "" {
				qt.Assert(t, qt.IsNil(c.(*net.TCPConn).CloseWrite()))
			}
			resp, err := http.ReadResponse(r, nil)
			qt.Assert(t, qt.IsNil(err))
			n, err := io.Copy(io.Discard, resp.Body)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(n, big))
			_, err = r.ReadByte()
			qt.Check(t, qt.Equals(err, io.EOF))
		}
	})
}

func TestExpectContinue(t *testing.T) {
	each(t, func(t *testing.T, k Kind) {
		addr, _, _ := start(t, Config{Kind: k, Pool: newPool(t, 16<<20)})
		c, r := dial(t, addr)
		_, err := io.WriteString(c, "PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
		qt.Assert(t, qt.IsNil(err))
		line, err := r.ReadString('\n')
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(line, "HTTP/1.1 100 Continue\r\n"))
		_, _ = r.ReadString('\n')
		_, err = io.WriteString(c, "ok")
		qt.Assert(t, qt.IsNil(err))
		resp, err := http.ReadResponse(r, nil)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(resp.StatusCode, 200))
	})
}

func TestBusyPolling(t *testing.T) {
	for _, k := range []Kind{Epoll, IOUring} {
		t.Run(string(k), func(t *testing.T) {
			addr, stats, stop := start(t, Config{Kind: k, ResponseBytes: 5, BusyPoll: true})
			resp, err := client(t).Get("http://" + addr.String())
			qt.Assert(t, qt.IsNil(err))
			resp.Body.Close()
			qt.Check(t, qt.Equals(resp.StatusCode, 200))
			if k == Epoll {
				// The loop ends when the event is seen, without sleeping.
				stop()
			}
			qt.Check(t, qt.IsTrue(stats.Syscalls.Load() > 0), qt.Commentf("%v", stats.Syscalls.Load()))
		})
	}
}

func TestAddressInUse(t *testing.T) {
	each(t, func(t *testing.T, k Kind) {
		addr, _, _ := start(t, Config{Kind: Epoll})
		err := Run(context.Background(), Config{Kind: k, Addr: addr})
		qt.Assert(t, qt.ErrorMatches(err, "serve "+string(k)+": listen .*address already in use"))
	})
	qt.Assert(t, qt.ErrorMatches(Run(context.Background(), Config{Kind: "x"}), "serve x: unknown contender"))
}
