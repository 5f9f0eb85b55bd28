package kvd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/internal/httpd"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/kv"
)

// local is a server on the loopback device, without a NIC.
type local struct {
	t      *testing.T
	srv    *httpd.Server
	url    string
	addr   string
	store  *kv.Store
	client *http.Client
	pool   *pmem.Pool
	ahead  *atomic.Int64 // of the server's clock
	stop   func()
}

// clock is the server's. It stands still unless the test has it go on.
func (l *local) clock() time.Time { return time.Unix(1e9, l.ahead.Load()) }

func (l *local) forward(d time.Duration) { l.ahead.Add(int64(d)) }

// reopen is a server over the same pool, which has been opened again.
func (l *local) reopen() *local {
	l.t.Helper()
	l.stop()
	mem, err := unix.Mmap(-1, 0, len(l.pool.Mem()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	qt.Assert(l.t, qt.IsNil(err))
	l.t.Cleanup(func() { qt.Check(l.t, qt.IsNil(unix.Munmap(mem))) })
	copy(mem, l.pool.Mem())
	pool, err := pmem.OpenMemory(mem, nil, pmem.Options{})
	qt.Assert(l.t, qt.IsNil(err))
	return openOver(l.t, pool, 1, httpd.Config{})
}

func openLocal(t *testing.T, rings int, cfg httpd.Config) *local {
	t.Helper()
	pool, err := pmem.NewMemory("kvd-test", pmem.Options{Size: 64 << 20})
	qt.Assert(t, qt.IsNil(err))
	return openOver(t, pool, rings, cfg)
}

func openOver(t *testing.T, pool *pmem.Pool, rings int, cfg httpd.Config) *local {
	t.Helper()
	store, err := kv.Open(pool, kv.Options{Verify: true})
	qt.Assert(t, qt.IsNil(err))
	cfg.Addr, cfg.Logger = "127.0.0.1:0", slog.New(slog.DiscardHandler)
	ahead := new(atomic.Int64)
	srv, err := newServer(cfg, store, hooks{now: func() time.Time { return time.Unix(1e9, ahead.Load()) }})
	qt.Assert(t, qt.IsNil(err))
	port, err := pasteapi.Open(t.Context(), pasteapi.Options{Pool: pool, Rings: rings, Logger: cfg.Logger})
	qt.Assert(t, qt.IsNil(err))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var all []httpd.Ring
	for i := range rings {
		all = append(all, port.Ring(i))
	}
	go func() { done <- srv.Run(ctx, all...) }()
	l := &local{t: t, srv: srv, store: store, addr: srv.Addr().String(), client: &http.Client{Timeout: 3 * time.Minute, Transport: &http.Transport{}}, pool: pool, ahead: ahead}
	l.url = "http://" + l.addr
	l.stop = sync.OnceFunc(func() {
		l.client.CloseIdleConnections()
		cancel()
		qt.Check(t, qt.IsNil(within(done)))
		qt.Check(t, qt.IsNil(port.Close()))
	})
	t.Cleanup(func() {
		l.stop()
		qt.Check(t, qt.IsNil(store.Close()))
		qt.Check(t, qt.IsNil(pool.Close()))
	})
	return l
}

// do sends a request with header fields "Name: value".
func (l *local) do(method, path, body string, fields ...string) (code int, out string, header http.Header) {
	l.t.Helper()
	req, err := http.NewRequest(method, l.url+path, strings.NewReader(body))
	qt.Assert(l.t, qt.IsNil(err))
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		req.Header.Set(name, value)
	}
	resp, err := l.client.Do(req)
	qt.Assert(l.t, qt.IsNil(err))
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	qt.Assert(l.t, qt.IsNil(err))
	return resp.StatusCode, string(b), resp.Header
}

// Data that the client asks to protect is not overwritten, nor deleted.
func TestConditions(t *testing.T) {
	l := openLocal(t, 1, httpd.Config{})
	want := func(code int, method, path, body string, fields ...string) string {
		t.Helper()
		got, out, header := l.do(method, path, body, fields...)
		qt.Check(t, qt.Equals(got, code), qt.Commentf("%s %s %v: %s", method, path, fields, out))
		return header.Get("ETag")
	}
	for _, size := range []int{0, 10, 64, 65, 200, 256, 1000, 5000, 100_000} {
		path := fmt.Sprint("/k/", size)
		v := func(c string) string { return strings.Repeat(c, size) }
		want(412, "PUT", path, v("x"), `If-Match: *`)
		want(404, "GET", path, "", `If-None-Match: *`)
		want(412, "GET", path, "", `If-Match: "a"`)
		want(412, "DELETE", path, "", `If-Match: *`)
		want(201, "PUT", path, v("a"), `If-None-Match: *`)
		want(412, "PUT", path, v("b"), `If-None-Match: *`)
		first := want(200, "GET", path, "")
		qt.Check(t, qt.Not(qt.Equals(first, "")))
		qt.Check(t, qt.Equals(want(200, "HEAD", path, ""), first))
		qt.Check(t, qt.Equals(want(304, "GET", path, "", "If-None-Match: "+first), first))
		qt.Check(t, qt.Equals(want(304, "HEAD", path, "", `If-None-Match: "x", W/`+first), first))
		want(412, "PUT", path, v("b"), "If-None-Match: "+first)
		want(412, "PUT", path, v("b"), `If-Match: "other"`)
		want(412, "PUT", path, v("b"), "If-Match: W/"+first)
		want(204, "PUT", path, v("b"), `If-Match: "other", `+first)
		second := want(200, "GET", path, "", "If-Match: *")
		if size > 0 {
			qt.Check(t, qt.Not(qt.Equals(second, first)))
			want(412, "PUT", path, v("c"), "If-Match: "+first)
			want(412, "DELETE", path, "", "If-Match: "+first)
		}
		_, out, _ := l.do("GET", path, "", "If-None-Match: garbage")
		qt.Check(t, qt.Equals(out, v("b")))
		want(412, "PUT", path, v("d"), "If-Unmodified-Since: Tue, 24 Nov 2026 00:00:00 GMT")
		want(501, "PUT", path, v("d"), "Content-Range: bytes 0-9/20")
		want(204, "DELETE", path, "", "If-Match: "+second)
		want(404, "GET", path, "")
	}
	want(501, "GET", "/k", "", `If-None-Match: *`)
}

// Of several clients that change a value on condition, each sees its own change
// take effect: nothing comes between look and change, whichever ring does it.
func TestConditionalCounter(t *testing.T) {
	l := openLocal(t, 2, httpd.Config{})
	code, _, _ := l.do("PUT", "/k/n", "0")
	qt.Assert(t, qt.Equals(code, 201))
	const clients, rounds = 8, 20
	var wg sync.WaitGroup
	for range clients {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for done := 0; done < rounds; {
				_, out, header := l.do("GET", "/k/n", "")
				var n int
				fmt.Sscan(out, &n)
				code, _, _ := l.do("PUT", "/k/n", fmt.Sprint(n+1), "If-Match: "+header.Get("ETag"))
				switch code {
				case 204:
					done++
				case 412:
				default:
					t.Errorf("status %d", code)
					return
				}
			}
		}()
	}
	wg.Wait()
	_, out, _ := l.do("GET", "/k/n", "")
	qt.Check(t, qt.Equals(out, fmt.Sprint(clients*rounds)))
}

// within is what ch brings; a server that hangs is an error of the test's.
func within(ch <-chan error) error {
	select {
	case err := <-ch:
		return err
	case <-time.After(3 * time.Minute):
		return errors.New("nothing has happened for three minutes")
	}
}
