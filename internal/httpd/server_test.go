package httpd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/go-quicktest/qt"
	"go.uber.org/goleak"

	"github.com/pastenet/paste/internal/servertest"
	"github.com/pastenet/paste/internal/tcplisten"
	"github.com/pastenet/paste/pmem"
)

func TestMain(m *testing.M) {
	servertest.Main(child)
	goleak.VerifyTestMain(m)
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
	qt.Assert(t, qt.IsTrue(strings.HasSuffix(got, "xxx")), qt.Commentf("%.300q", got))
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
	qt.Assert(t, qt.IsTrue(strings.HasPrefix(string(rest), created(1))), qt.Commentf("%.300q", string(rest)))
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
	qt.Assert(t, qt.IsTrue(strings.HasPrefix(string(got), "HTTP/1.1 503 ")), qt.Commentf("%.300q", string(got)))
	// Those that are in go on.
	_, err = io.WriteString(kept[0], closing)
	qt.Assert(t, qt.IsNil(err))
	got, err = io.ReadAll(kept[0])
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(strings.HasPrefix(string(got), "HTTP/1.1 200 ")), qt.Commentf("%.300q", string(got)))
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
	qt.Assert(t, qt.IsTrue(len(got) < n && len(got) > 0), qt.Commentf("%v, %v", len(got), n))
	qt.Assert(t, qt.Equals(got[len(got)-1], fmt.Sprintf("%01400d", n-1)))
}

// TestBodyLargerThanThePool is refused before it is read if its length is known,
// else when it is known; and nothing else suffers.
func TestBodyLargerThanThePool(t *testing.T) {
	f := serve(t, setup{cfg: Config{ResponseBytes: 8}, poolSize: 2 << 20})
	c := f.dial()
	_, err := io.WriteString(c, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 4194304\r\nExpect: 100-continue\r\n\r\n")
	qt.Assert(t, qt.IsNil(err))
	got, err := io.ReadAll(c)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(strings.HasPrefix(string(got), "HTTP/1.1 413 ")), qt.Commentf("%q", got))
	out := f.talk("PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n400000\r\n" + strings.Repeat("b", 4<<20))
	qt.Assert(t, qt.IsTrue(strings.HasPrefix(out, "HTTP/1.1 413 ")), qt.Commentf("%q", out))
	qt.Assert(t, qt.Equals(f.talk(post("small")+closing), created(1)+okClose))
}

// TestLargestBody: a body as large as the pool allows for is stored, however it
// is cut, and a limit that can never be reached is refused.
func TestLargestBody(t *testing.T) {
	for _, mss := range []int{600, 1448} {
		for _, chunked := range []bool{false, true} {
			f := serve(t, setup{poolSize: 4 << 20, mss: mss})
			limit := int(f.srv.cfg.BodyLimit)
			qt.Assert(t, qt.IsTrue(limit > 4<<20/2-4<<20/8), qt.Commentf("%d", limit))
			body := strings.Repeat("0123456789abcdef", limit/16)
			in := post(body)
			if chunked {
				in = fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
			}
			out := f.talk(in + closing)
			qt.Assert(t, qt.IsTrue(strings.HasPrefix(out, created(1))), qt.Commentf("mss %d, chunked %v: %q", mss, chunked, out[:min(len(out), 200)]))
			qt.Assert(t, qt.IsTrue(f.records()[0] == body))
			_, err := New(Config{Addr: "127.0.0.1:0", BodyLimit: int64(limit) + 1}, f.pool)
			qt.Assert(t, qt.ErrorMatches(err, "new http server: bodies of up to .* cannot be kept: .* make the pool larger"))
		}
	}
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
	qt.Assert(t, qt.ErrorIs(err, tcplisten.ErrAddrInUse))
}

func TestListenErrors(t *testing.T) {
	for _, addr := range []string{"", "1.2.3.4", "1.2.3.4:http", "1.2.3.4:70000", "example.org:80", "192.0.2.1:80", "[fe80::1%nowhere]:80"} {
		fd, _, err := tcplisten.Listen(addr, false)
		qt.Check(t, qt.IsNotNil(err), qt.Commentf("%s", addr))
		qt.Check(t, qt.Equals(fd, -1))
	}
	_, _, err := tcplisten.Listen("nonsense", false)
	qt.Assert(t, qt.ErrorMatches(err, `listen on "nonsense": want ADDRESS:PORT.*`))
}

// TestNoAllocation: neither a GET nor a stored POST allocates, the log aside.
func TestNoAllocation(t *testing.T) {
	for _, in := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", post(strings.Repeat("b", 1000))} {
		pool, err := pmem.NewMemory("httpd-test", pmem.Options{Size: 32 << 20, FrameSize: 2048})
		qt.Assert(t, qt.IsNil(err))
		ring := newFakeRing(pool, 64, 1448)
		l := newLoop(&Server{cfg: Config{BodyLimit: 1 << 20}, pool: pool, fd: -1, loops: make([]*loop, 1), maxFrames: 1000}, 0, ring, newReplies(64))
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
			l.Syncs++
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
		qt.Check(t, qt.Equals(got, ofLog), qt.Commentf("%.20q", in))
		qt.Check(t, qt.Equals(c.phase, serving))
		ring.close()
		qt.Assert(t, qt.IsNil(pool.Close()))
	}
}
