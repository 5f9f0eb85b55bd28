package httpd

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// hold sends all but the end of n bodies of size bytes, and waits until they
// hold what they can of the pool.
func (f *fixture) hold(n, size int) {
	f.t.Helper()
	for range n {
		c := f.dial()
		go func() {
			_, _ = io.WriteString(c, fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("b", size-1)))
		}()
	}
	eventually(f.t, "bodies hold the pool", func() bool { return f.srv.Stats().Evicted > 0 })
}

// TestUnfinishedBodies: bodies that do not end, more than the pool can hold, take
// nothing from those that do.
func TestUnfinishedBodies(t *testing.T) {
	f := serve(t, setup{poolSize: 8 << 20})
	f.hold(4, int(f.srv.cfg.BodyLimit)/2)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for i := range 200 {
		resp, err := client.Post("http://"+f.addr, "", strings.NewReader(strings.Repeat("x", 10+i*50)))
		qt.Assert(t, qt.IsNil(err))
		resp.Body.Close()
		qt.Assert(t, qt.Equals(resp.StatusCode, 201), qt.Commentf("request %d", i))
	}
	qt.Assert(t, qt.HasLen(f.records(), 200))
}

// TestWrapKeepsAcknowledged: with a log that wraps, bodies that do not end make
// no acknowledged record go.
func TestWrapKeepsAcknowledged(t *testing.T) {
	for rings := 1; rings <= 2; rings++ {
		t.Run(fmt.Sprint(rings), func(t *testing.T) { wrapKeeps(t, rings) })
	}
}

func wrapKeeps(t *testing.T, rings int) {
	f := serve(t, setup{cfg: Config{OnFull: Wrap, Rings: rings}, poolSize: 8 << 20})
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	const n = 100
	for i := range n {
		resp, err := client.Post("http://"+f.addr, "", strings.NewReader(fmt.Sprintf("%02000d", i)))
		qt.Assert(t, qt.IsNil(err))
		resp.Body.Close()
		qt.Assert(t, qt.Equals(resp.StatusCode, 201))
	}
	f.hold(8*rings, int(f.srv.cfg.BodyLimit)/2)
	got := f.records()
	qt.Assert(t, qt.HasLen(got, n))
	qt.Assert(t, qt.Equals(got[0], fmt.Sprintf("%02000d", 0)))
}

// TestPipelineOfLargeReplies: a client that asks for far more than fits, and
// reads, gets all of it, and what it asked for behind that.
func TestPipelineOfLargeReplies(t *testing.T) {
	const size, n = 8 << 20, 8
	f := serve(t, setup{cfg: Config{ResponseBytes: size}, poolSize: 8 << 20})
	c := f.dial()
	in := strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", n) + post(strings.Repeat("p", 100_000)) + closing
	go func() { _, _ = io.WriteString(c, in) }()
	got, err := io.ReadAll(c)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(strings.Count(string(got), "HTTP/1.1 200 OK"), n+1))
	qt.Assert(t, qt.StringContains(string(got), created(1)))
	qt.Assert(t, qt.Equals(strings.Count(string(got), "x"), (n+1)*size))
	qt.Assert(t, qt.DeepEquals(f.records(), []string{strings.Repeat("p", 100_000)}))
}

// TestHalfCloseBehindLargeReplies: the end of what a client sends does not cut off
// what it has asked for.
func TestHalfCloseBehindLargeReplies(t *testing.T) {
	const size, n = 2 << 20, 5
	f := serve(t, setup{cfg: Config{ResponseBytes: size}})
	c := f.dial()
	_, err := io.WriteString(c, strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", n)+post("last"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(c.CloseWrite()))
	got, err := io.ReadAll(c)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(strings.Count(string(got), "HTTP/1.1 200 OK"), n))
	qt.Assert(t, qt.IsTrue(strings.HasSuffix(string(got), created(1))), qt.Commentf("%.300q", string(got)))
}
