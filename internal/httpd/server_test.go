package httpd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"go.uber.org/goleak"

	"github.com/pastenet/paste/pmem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

const (
	closing = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	x8      = "xxxxxxxx"
	okKeep  = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n" + x8
	okClose = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8\r\n\r\n" + x8
)

func post(body string) string {
	return fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func created(seq int) string {
	n := fmt.Sprint(seq)
	return fmt.Sprintf("HTTP/1.1 201 Created\r\nX-Paste-Seq: %s\r\nContent-Length: %d\r\n\r\n%s\n", n, len(n)+1, n)
}

func TestConversations(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 1000)
	for _, tc := range []struct {
		name, in, want string
		stored         []string
	}{
		{name: "get", in: closing, want: okClose},
		{name: "keep-alive", in: "GET /a HTTP/1.1\r\nHost: x\r\n\r\n" + closing, want: okKeep + okClose},
		{name: "head", in: "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" + closing, want: strings.TrimSuffix(okKeep, x8) + okClose},
		{name: "1.0", in: "GET / HTTP/1.0\r\n\r\n", want: okClose},
		{
			name: "1.0 keep-alive", in: "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + closing,
			want: "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 8\r\n\r\n" + x8 + okClose,
		},
		{name: "post", in: post("hello") + closing, want: created(1) + okClose, stored: []string{"hello"}},
		{name: "empty body", in: post("") + closing, want: created(1) + okClose, stored: []string{""}},
		{
			name: "several bodies", in: post("a") + post("") + post("bc") + post(long) + post("d") + closing,
			want:   created(1) + created(2) + created(3) + created(4) + created(5) + okClose,
			stored: []string{"a", "", "bc", long, "d"},
		},
		{
			name: "chunked",
			in: "PUT /f HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" +
				"5\r\nhello\r\n1;x=y\r\n \r\n3e80\r\n" + long + "\r\n0\r\nA: b\r\n\r\n" + closing,
			want: created(1) + okClose, stored: []string{"hello " + long},
		},
		{
			name: "100-continue", in: "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n" + closing,
			want: created(1) + okClose, stored: []string{""},
		},
		{
			name: "method", in: "DELETE / HTTP/1.1\r\nHost: x\r\n\r\n" + closing,
			want: string(render(405, formKeep, "Allow: GET, HEAD, POST, PUT\r\n", "only GET, HEAD, POST and PUT are served\n")) + okClose,
		},
		{
			name: "malformed after good", in: post("kept") + "BROKEN\r\n\r\n" + closing,
			want: created(1) + string(render(400, formClose, "", "malformed request line\n")), stored: []string{"kept"},
		},
		{
			name: "smuggling", in: "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			want: string(render(400, formClose, "", "more than one body length\n")),
		},
		{
			name: "bad chunk gives nothing", in: "PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX",
			want: string(render(400, formClose, "", "malformed chunk\n")),
		},
		{
			name: "too large", in: "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20001\r\n\r\n" + long,
			want: string(render(413, formClose, "", "body is larger than the limit\n")),
		},
		{
			name: "too large in chunks", in: "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e80\r\n" + long + "\r\n3e80\r\n" + long,
			want: string(render(413, formClose, "", "body is larger than the limit\n")),
		},
	} {
		for _, mss := range []int{1, 7, 100, 1448, 1900} {
			for _, persist := range []Persist{PersistZeroCopy, PersistCopy} {
				t.Run(fmt.Sprintf("%s/%d/%s", tc.name, mss, persist), func(t *testing.T) {
					f := serve(t, setup{cfg: Config{ResponseBytes: 8, Persist: persist, BodyLimit: 20000}, mss: mss})
					qt.Assert(t, qt.Equals(f.talk(tc.in), tc.want))
					qt.Assert(t, qt.DeepEquals(f.records(), tc.stored))
				})
			}
		}
	}
}

func TestPersistNone(t *testing.T) {
	f := serve(t, setup{cfg: Config{ResponseBytes: 8, Persist: PersistNone}})
	got := f.talk(post("gone") + closing)
	qt.Assert(t, qt.Equals(got, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"+okClose))
	qt.Assert(t, qt.HasLen(f.records(), 0))
}

// TestLargeResponses fill many TX slots, more than the ring has, in several
// requests of one batch.
func TestLargeResponses(t *testing.T) {
	const size = 1 << 20
	f := serve(t, setup{cfg: Config{ResponseBytes: size}})
	got := f.talk(strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 3) + post("x") + closing)
	qt.Assert(t, qt.Equals(strings.Count(got, "x"), 4*size))
	qt.Assert(t, qt.IsTrue(strings.HasSuffix(got, "xxx")))
}

// TestExpectContinue: nothing of the body is sent before the server says so.
func TestExpectContinue(t *testing.T) {
	f := serve(t, setup{})
	c := f.dial()
	_, err := io.WriteString(c, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	qt.Assert(t, qt.IsNil(err))
	want := "HTTP/1.1 100 Continue\r\n\r\n"
	b := make([]byte, len(want))
	_, err = io.ReadFull(c, b)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(string(b), want))
	_, err = io.WriteString(c, "body"+closing)
	qt.Assert(t, qt.IsNil(err))
	rest, err := io.ReadAll(c)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(strings.HasPrefix(string(rest), created(1))))
	qt.Assert(t, qt.DeepEquals(f.records(), []string{"body"}))
}

// TestClients: bodies of all sizes from many clients at once are what the log
// holds.
func TestClients(t *testing.T) {
	for _, persist := range []Persist{PersistZeroCopy, PersistCopy} {
		t.Run(persist.String(), func(t *testing.T) {
			f := serve(t, setup{cfg: Config{Persist: persist}, poolSize: 64 << 20})
			client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 8, MaxIdleConnsPerHost: 8}}
			defer client.CloseIdleConnections()
			var wg sync.WaitGroup
			var mu sync.Mutex
			sent := map[string]string{}
			for i, size := range []int{1, 2, 100, 1447, 1448, 1449, 2048, 5000, 65536, 1 << 20, 8 << 20} {
				wg.Add(1)
				go func() {
					defer wg.Done()
					body := make([]byte, size)
					rng := rand.New(rand.NewPCG(uint64(i), 0))
					for k := range body {
						body[k] = byte(rng.Uint32())
					}
					req, _ := http.NewRequest("PUT", "http://"+f.addr+"/", bytes.NewReader(body))
					if i%3 == 0 {
						req.ContentLength = -1 // chunked
					}
					resp, err := client.Do(req)
					if !qt.Check(t, qt.IsNil(err)) {
						return
					}
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					qt.Check(t, qt.Equals(resp.StatusCode, 201))
					mu.Lock()
					sent[resp.Header.Get("X-Paste-Seq")] = string(body)
					mu.Unlock()
				}()
			}
			wg.Wait()
			f.stop()
			qt.Assert(t, qt.HasLen(sent, 11))
			for r, err := range f.pool.Log().Records() {
				qt.Assert(t, qt.IsNil(err))
				var b strings.Builder
				r.WriteTo(&b)
				qt.Assert(t, qt.IsTrue(b.String() == sent[fmt.Sprint(r.Seq)]), qt.Commentf("record %d", r.Seq))
			}
		})
	}
}

// TestHalfClose: a client that shuts down after its request still gets the
// answer, whether it does so before or after it was accepted.
func TestHalfClose(t *testing.T) {
	f := serve(t, setup{cfg: Config{ResponseBytes: 8}})
	for range 50 {
		c := f.dial()
		_, err := io.WriteString(c, post("half")+"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT")
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(c.CloseWrite()))
		out, err := io.ReadAll(c)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsTrue(strings.HasSuffix(string(out), okKeep)), qt.Commentf("%q", out))
	}
	qt.Assert(t, qt.HasLen(f.records(), 50))
}

// TestVanishedClients: unfinished bodies give their frames back.
func TestVanishedClients(t *testing.T) {
	f := serve(t, setup{})
	for i := range 20 {
		c := f.dial()
		_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("b", 50000))
		qt.Assert(t, qt.IsNil(err))
		eventually(t, "body received", func() bool { return f.pool.Free() < f.base })
		if i%2 == 0 {
			qt.Assert(t, qt.IsNil(c.SetLinger(0))) // RST
		}
		qt.Assert(t, qt.IsNil(c.Close()))
		eventually(t, "frames given back", func() bool { return f.pool.Free() == f.base })
	}
	eventually(t, "connections closed", func() bool { return f.srv.Stats().Connections == 0 })
	qt.Assert(t, qt.HasLen(f.records(), 0))
}

func TestTooManyConnections(t *testing.T) {
	f := serve(t, setup{cfg: Config{MaxConns: 3}})
	var kept []*net.TCPConn
	for range 3 {
		kept = append(kept, f.dial())
	}
	eventually(t, "three connections", func() bool { return f.srv.Stats().Connections == 3 })
	got, err := io.ReadAll(f.dial())
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(strings.HasPrefix(string(got), "HTTP/1.1 503 ")))
	// Those that are in go on.
	_, err = io.WriteString(kept[0], closing)
	qt.Assert(t, qt.IsNil(err))
	got, err = io.ReadAll(kept[0])
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(strings.HasPrefix(string(got), "HTTP/1.1 200 ")))
	kept[0].Close()
	eventually(t, "room again", func() bool { return f.srv.Stats().Connections == 2 })
	qt.Assert(t, qt.IsTrue(strings.HasPrefix(f.talk(closing), "HTTP/1.1 200 ")))
}

func TestFull(t *testing.T) {
	body := strings.Repeat("f", 1000)
	for _, persist := range []Persist{PersistZeroCopy, PersistCopy} {
		t.Run(persist.String(), func(t *testing.T) {
			f := serve(t, setup{cfg: Config{ResponseBytes: 8, Persist: persist}, poolSize: 2 << 20})
			c := &http.Client{}
			defer c.CloseIdleConnections()
			statuses := map[int]int{}
			for range 2 * f.base {
				resp, err := c.Post("http://"+f.addr, "", strings.NewReader(body))
				qt.Assert(t, qt.IsNil(err))
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				statuses[resp.StatusCode]++
			}
			qt.Assert(t, qt.IsTrue(statuses[201] > f.base/2), qt.Commentf("%v", statuses))
			qt.Assert(t, qt.Equals(statuses[201]+statuses[507], 2*f.base))
			qt.Assert(t, qt.Equals(f.talk(closing), okClose))
			qt.Assert(t, qt.HasLen(f.records(), statuses[201]))
		})
	}
}

func TestWrap(t *testing.T) {
	f := serve(t, setup{cfg: Config{OnFull: Wrap}, poolSize: 2 << 20})
	c := &http.Client{}
	defer c.CloseIdleConnections()
	n := 3 * f.base
	for i := range n {
		resp, err := c.Post("http://"+f.addr, "", strings.NewReader(fmt.Sprintf("%01400d", i)))
		qt.Assert(t, qt.IsNil(err))
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		qt.Assert(t, qt.Equals(resp.StatusCode, 201))
	}
	got := f.records()
	qt.Assert(t, qt.IsTrue(len(got) < n && len(got) > 0))
	qt.Assert(t, qt.Equals(got[len(got)-1], fmt.Sprintf("%01400d", n-1)))
}

// TestBodyLargerThanThePool is refused in the end, and nothing else suffers.
func TestBodyLargerThanThePool(t *testing.T) {
	f := serve(t, setup{cfg: Config{ResponseBytes: 8}, poolSize: 2 << 20})
	got := f.talk(post(strings.Repeat("b", 4<<20)) + post("small") + closing)
	qt.Assert(t, qt.IsTrue(strings.HasPrefix(got, "HTTP/1.1 507 ")), qt.Commentf("%q", got))
	qt.Assert(t, qt.IsTrue(strings.HasSuffix(got, created(1)+okClose)), qt.Commentf("%q", got))
}

// TestStop: what was answered before the stop is in the log, whoever is
// connected.
func TestStop(t *testing.T) {
	f := serve(t, setup{})
	c := f.dial()
	_, err := io.WriteString(c, post("last")+"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nunfin")
	qt.Assert(t, qt.IsNil(err))
	b := make([]byte, len(created(1)))
	_, err = io.ReadFull(c, b)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(f.records(), []string{"last"}))
	_, err = net.Dial("tcp", f.addr)
	qt.Assert(t, qt.IsNotNil(err))
}

func TestAddressInUse(t *testing.T) {
	f := serve(t, setup{})
	_, err := New(Config{Addr: f.addr}, f.pool)
	qt.Assert(t, qt.ErrorIs(err, ErrAddrInUse))
}

func TestListenErrors(t *testing.T) {
	for _, addr := range []string{"", "1.2.3.4", "1.2.3.4:http", "1.2.3.4:70000", "example.org:80", "192.0.2.1:80", "[fe80::1%nowhere]:80"} {
		fd, _, err := listen(addr, false)
		qt.Check(t, qt.IsNotNil(err), qt.Commentf("%s", addr))
		qt.Check(t, qt.Equals(fd, -1))
	}
	_, _, err := listen("nonsense", false)
	qt.Assert(t, qt.ErrorMatches(err, `listen on "nonsense": want ADDRESS:PORT.*`))
}

// TestNoAllocation: neither a GET nor a stored POST allocates, the log aside.
func TestNoAllocation(t *testing.T) {
	for _, in := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", post(strings.Repeat("b", 1000))} {
		pool, err := pmem.NewMemory("httpd-test", pmem.Options{Size: 32 << 20, FrameSize: 2048})
		qt.Assert(t, qt.IsNil(err))
		ring := newFakeRing(pool, 64, 1448)
		l := newLoop(&Server{cfg: Config{BodyLimit: 1 << 20}, pool: pool, fd: -1, loops: make([]*loop, 1)}, 0, ring, newReplies(64))
		c := l.newConn(0)
		round := func() {
			slot := ring.rx.Slot(ring.rx.Head)
			slot.SetFd(0)
			slot.SetDoff(fakeDoff)
			slot.Len = uint16(fakeDoff + copy(ring.rx.Buf(slot)[fakeDoff:], in))
			ring.rx.Tail = ring.rx.Next(ring.rx.Head)
			if err := errors.Join(l.batch(), l.endBatch()); err != nil {
				t.Fatal(err)
			}
			l.syncs++
			ring.tx.Tail = (ring.tx.Head + ring.tx.NumSlots - 1) % ring.tx.NumSlots
		}
		round() // buffers grow to their size
		records := pool.Log().Next()
		got := testing.AllocsPerRun(500, round)
		ofLog := 0.0
		if pool.Log().Next() > records {
			frag := []pmem.Fragment{{Frame: ring.rx.Slot(0).BufIdx, Len: 1000}}
			ofLog = testing.AllocsPerRun(500, func() {
				_, err := pool.Log().Append(frag, true)
				if err := errors.Join(err, pool.Log().Commit()); err != nil {
					t.Fatal(err)
				}
			})
		}
		qt.Check(t, qt.Equals(got, ofLog))
		qt.Check(t, qt.Equals(c.phase, serving))
		ring.close()
		qt.Assert(t, qt.IsNil(pool.Close()))
	}
}
