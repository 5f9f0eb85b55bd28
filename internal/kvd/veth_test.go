package kvd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/btree"
	"github.com/pastenet/paste/pmem/kv"
)

func newLab(t *testing.T) *netlab.Lab {
	t.Helper()
	return netlabtest.New(t, netlab.Config{Prefix: "kvt"})
}

// site is a server in a lab.
type site struct {
	t      *testing.T
	lab    *netlab.Lab
	store  *kv.Store
	url    string
	addr   string
	client *http.Client
	stop   func() pasteapi.Status
}

func open(t *testing.T, size int64) *site {
	t.Helper()
	l := newLab(t)
	pool, err := pmem.NewMemory("kvd-test", pmem.Options{Size: size})
	qt.Assert(t, qt.IsNil(err))
	store, err := kv.Open(pool, kv.Options{Verify: true, Checkpoint: 100})
	qt.Assert(t, qt.IsNil(err))
	s := &site{t: t, lab: l, store: store}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan error, 1), make(chan error, 1)
	var status pasteapi.Status
	go func() {
		done <- l.InServer(func() error {
			r, err := serveOn(ctx, store, netip.AddrPortFrom(l.ServerIP4, 0).String(), l.ServerDev)
			if err == nil {
				s.addr = r.srv.Addr().String()
			}
			ready <- err
			if err != nil {
				return nil
			}
			err = r.srv.Run(ctx, r.port.Ring(0))
			status = r.port.Status()
			r.port.Close()
			return err
		})
	}()
	s.stop = sync.OnceValue(func() pasteapi.Status {
		cancel()
		qt.Check(t, qt.IsNil(within(done)))
		return status
	})
	s.client = &http.Client{Timeout: 3 * time.Minute, Transport: &http.Transport{
		DialContext: l.Client.DialContext, MaxIdleConnsPerHost: 100, ExpectContinueTimeout: 3 * time.Minute,
	}}
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		s.stop()
		qt.Check(t, qt.IsNil(store.Close()))
		s.leaks(pool)
		qt.Check(t, qt.IsNil(pool.Close()))
	})
	qt.Assert(t, qt.IsNil(within(ready)))
	s.url = "http://" + s.addr
	return s
}

// leaks compares the frames in use with those that the tree owns.
func (s *site) leaks(p *pmem.Pool) {
	frames := map[uint32]bool{}
	r, _ := p.Root(kv.RootName)
	qt.Check(s.t, qt.IsNil(btree.Walk(p, r, func(f uint32) error { frames[f] = true; return nil })))
	qt.Check(s.t, qt.Equals(int(p.Frames()-p.FirstFrame())-p.Free(), len(frames)))
	qt.Check(s.t, qt.Equals(p.Misuses(), 0))
	qt.Check(s.t, qt.IsNil(btree.Check(p, kv.RootName, r, func(err error) error { return err })))
}

// do sends a request and returns the status and the body of the answer.
func (s *site) do(method, path string, body []byte, mod ...func(*http.Request)) (int, []byte) {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url+path, bytes.NewReader(body))
	qt.Assert(s.t, qt.IsNil(err))
	for _, m := range mod {
		m(req)
	}
	resp, err := s.client.Do(req)
	qt.Assert(s.t, qt.IsNil(err))
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	qt.Assert(s.t, qt.IsNil(err))
	if method != "HEAD" {
		qt.Assert(s.t, qt.IsTrue(resp.ContentLength == int64(len(b)) || resp.StatusCode == 204))
	}
	return resp.StatusCode, b
}

func pattern(n int, seed uint64) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func TestValues(t *testing.T) {
	s := open(t, 64<<20)
	for _, n := range []int{0, 1, 64, 65, 200, 255, 256, 300, 1000, 1024, 1400, 1448, 2048, 5000, 100_000, 3_000_000} {
		for i, mod := range []func(*http.Request){
			func(*http.Request) {},
			func(r *http.Request) { r.ContentLength = -1 }, // chunked
			func(r *http.Request) { r.Header.Set("Expect", "100-continue") },
		} {
			path, v := fmt.Sprintf("/k/size-%d-%d", n, i), pattern(n, uint64(i))
			code, _ := s.do("PUT", path, pattern(n/2, 9), mod)
			qt.Assert(t, qt.Equals(code, 201))
			code, _ = s.do("PUT", path, v, mod)
			qt.Assert(t, qt.Equals(code, 204))
			for range 3 {
				code, got := s.do("GET", path, nil)
				qt.Assert(t, qt.Equals(code, 200))
				qt.Assert(t, qt.IsTrue(bytes.Equal(got, v)), qt.Commentf("%d bytes, way %d: got %d", n, i, len(got)))
			}
			code, got := s.do("GET", path, nil, func(r *http.Request) { r.Close = true })
			qt.Assert(t, qt.Equals(code, 200))
			qt.Assert(t, qt.IsTrue(bytes.Equal(got, v)))
			code, _ = s.do("HEAD", path, nil)
			qt.Assert(t, qt.Equals(code, 200))
			if i == 1 {
				code, _ = s.do("DELETE", path, nil)
				qt.Assert(t, qt.Equals(code, 204))
				code, _ = s.do("GET", path, nil)
				qt.Assert(t, qt.Equals(code, 404))
				code, _ = s.do("DELETE", path, nil)
				qt.Assert(t, qt.Equals(code, 404))
			}
		}
	}
	status := s.stop()
	qt.Assert(t, qt.IsTrue(status.Stats.Steered > 0), qt.Commentf("%v", status.Stats.Steered))
}

func TestKeys(t *testing.T) {
	s := open(t, 32<<20)
	long := strings.Repeat("x", 255)
	for _, k := range []string{"a", "a b", "a/b", "ü", "\x00\xff\n", "a+b", "100%", "?q", long} {
		code, _ := s.do("PUT", "/k/"+url.PathEscape(k), []byte(k))
		qt.Assert(t, qt.Equals(code, 201), qt.Commentf("%q", k))
		code, b := s.do("GET", "/k/"+url.PathEscape(k), nil)
		qt.Assert(t, qt.Equals(code, 200))
		qt.Assert(t, qt.IsTrue(strings.HasPrefix(k, string(b))), qt.Commentf("%.300q", k))
	}
	code, b := s.do("GET", "/k?prefix=a", nil)
	qt.Assert(t, qt.Equals(code, 200))
	qt.Assert(t, qt.Equals(string(b), "a\na%20b\na%2Bb\na/b\n"))
	_, b = s.do("GET", "/k?prefix=a&limit=1&after=a+b", nil)
	qt.Assert(t, qt.Equals(string(b), "a%2Bb\n"))
	_, b = s.do("GET", "/k", nil)
	qt.Assert(t, qt.Equals(bytes.Count(b, []byte("\n")), 9))
	for _, tc := range []struct {
		method, path string
		code         int
	}{
		{"PUT", "/k/" + long + "x", 414},
		{"PUT", "/k/" + strings.Repeat("x", 2000), 414},
		{"PUT", "/k/", 400},
		{"GET", "/k/none", 404},
		{"GET", "/", 404},
		{"PUT", "/k", 405},
		{"OPTIONS", "/k/a", 405},
		{"GET", "/k?limit=0", 400},
		{"GET", "/k?limit=x", 400},
		{"GET", "/k?what=1", 400},
	} {
		code, _ := s.do(tc.method, tc.path, []byte("some body"))
		qt.Check(t, qt.Equals(code, tc.code), qt.Commentf("%s %s", tc.method, tc.path))
	}
	req, err := http.NewRequest("PUT", s.url+"/k/x", nil)
	qt.Assert(t, qt.IsNil(err))
	req.URL.Opaque = "//" + s.addr + "/k/%zz"
	req.URL.Opaque = "/k/%zz"
	resp, err := s.client.Do(req)
	qt.Assert(t, qt.IsNil(err))
	resp.Body.Close()
	qt.Assert(t, qt.Equals(resp.StatusCode, 400))
}

// A full pool answers 507, serves what it has, and takes more after deletes.
func TestFull(t *testing.T) {
	s := open(t, 16<<20)
	n := 0
	var code int
	for ; n < 10000; n++ {
		if code, _ = s.do("PUT", fmt.Sprintf("/k/%d", n), pattern(1024, uint64(n))); code != 201 {
			break
		}
	}
	qt.Assert(t, qt.Equals(code, 507))
	qt.Assert(t, qt.IsTrue(n > 100), qt.Commentf("%d", n))
	for i := range n {
		code, b := s.do("GET", fmt.Sprintf("/k/%d", i), nil)
		qt.Assert(t, qt.Equals(code, 200))
		qt.Assert(t, qt.IsTrue(bytes.Equal(b, pattern(1024, uint64(i)))))
	}
	for i := range n {
		code, _ := s.do("DELETE", fmt.Sprintf("/k/%d", i), nil)
		qt.Assert(t, qt.Equals(code, 204))
	}
	for i := range n / 2 {
		code, _ = s.do("PUT", fmt.Sprintf("/k/%d", i), pattern(1024, uint64(i)))
		qt.Assert(t, qt.Equals(code, 201), qt.Commentf("%d of %d", i, n))
	}
}

// Many clients at once, each with keys of its own and some that all share.
func TestManyClients(t *testing.T) {
	s := open(t, 64<<20)
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(uint64(w), 5))
			for i := range 150 {
				k, n := fmt.Sprintf("/k/w%d-%d", w, i%10), rng.IntN(6000)
				v := pattern(n, uint64(i))
				code, _ := s.do("PUT", k, v)
				qt.Check(t, qt.Equals(code/100, 2))
				code, b := s.do("GET", k, nil)
				qt.Check(t, qt.Equals(code, 200))
				qt.Check(t, qt.IsTrue(bytes.Equal(b, v)))
				s.do([]string{"PUT", "GET", "DELETE"}[rng.IntN(3)], fmt.Sprintf("/k/shared%d", rng.IntN(5)), pattern(1000, 1))
			}
		}()
	}
	wg.Wait()
}

// A damaged value is not sent, and does not keep others from being served.
func TestDamagedValue(t *testing.T) {
	s := open(t, 32<<20)
	for _, k := range []string{"good", "bad"} {
		code, _ := s.do("PUT", "/k/"+k, pattern(1000, 1))
		qt.Assert(t, qt.Equals(code, 201))
	}
	var v kv.Value
	_, err := s.store.Get([]byte("bad"), &v)
	qt.Assert(t, qt.IsNil(err))
	b := s.store.Pool().Frame(v.Frags[0].Frame)[v.Frags[0].Off:]
	b[500] ^= 4
	code, _ := s.do("GET", "/k/bad", nil)
	qt.Assert(t, qt.Equals(code, 500))
	code, _ = s.do("GET", "/k/good", nil)
	qt.Assert(t, qt.Equals(code, 200))
	b[500] ^= 4
	s.store.Release(&v)
}
