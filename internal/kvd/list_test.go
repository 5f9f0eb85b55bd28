package kvd

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/httpd"
)

// fill puts n keys of 200 bytes, in order, into the store.
func (l *local) fill(n int) (keys []string) {
	for i := range n {
		k := fmt.Sprintf("%0200d", i)
		_, err := l.store.PutBytes([]byte(k), nil)
		qt.Assert(l.t, qt.IsNil(err))
		keys = append(keys, k)
	}
	qt.Assert(l.t, qt.IsNil(l.store.Commit()))
	return keys
}

// Long lists are whole, whatever their length and the client's version.
func TestLists(t *testing.T) {
	l := openLocal(t, 1, httpd.Config{})
	keys := l.fill(1000)
	for _, limit := range []int{1, 81, 82, 83, 500, 999, 1000, 1001} {
		want := strings.Join(keys[:min(limit, 1000)], "\n") + "\n"
		code, out, _ := l.do("GET", fmt.Sprint("/k?limit=", limit), "")
		qt.Check(t, qt.Equals(code, 200))
		qt.Check(t, qt.IsTrue(out == want), qt.Commentf("limit %d: %d bytes instead of %d", limit, len(out), len(want)))

		c, err := net.Dial("tcp", l.addr)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(c.SetDeadline(time.Now().Add(3*time.Minute))))
		fmt.Fprintf(c, "GET /k?limit=%d HTTP/1.0\r\n\r\n", limit)
		b, err := io.ReadAll(c)
		qt.Check(t, qt.IsNil(err))
		_, body, _ := strings.Cut(string(b), "\r\n\r\n")
		qt.Check(t, qt.IsTrue(body == want), qt.Commentf("HTTP/1.0, limit %d: %d bytes instead of %d", limit, len(body), len(want)))
		c.Close()

		code, _, _ = l.do("HEAD", fmt.Sprint("/k?limit=", limit), "")
		qt.Check(t, qt.Equals(code, 200))
	}
	_, out, _ := l.do("GET", "/k?after="+keys[500]+"&limit=200", "")
	qt.Check(t, qt.IsTrue(out == strings.Join(keys[501:701], "\n")+"\n"))
}

// A client that asks for many long lists at once gets them as it reads, and does
// not keep the server from others meanwhile.
func TestPipelinedLists(t *testing.T) {
	l := openLocal(t, 1, httpd.Config{})
	keys := l.fill(5000)
	const n = 100
	c, err := net.Dial("tcp", l.addr)
	qt.Assert(t, qt.IsNil(err))
	defer c.Close()
	qt.Assert(t, qt.IsNil(c.SetDeadline(time.Now().Add(3*time.Minute))))
	qt.Assert(t, qt.IsNil(c.(*net.TCPConn).SetReadBuffer(64<<10)))
	_, err = io.WriteString(c, strings.Repeat("GET /k?limit=10000 HTTP/1.1\r\nHost: x\r\n\r\n", n))
	qt.Assert(t, qt.IsNil(err))
	for range 20 {
		code, _, _ := l.do("GET", "/k/"+keys[7], "")
		qt.Assert(t, qt.Equals(code, 200))
	}
	// What nobody has read was not made: the socket holds some MiB of 100.
	begun := l.srv.Stats().Requests - 20
	qt.Check(t, qt.IsTrue(begun < n/2), qt.Commentf("%d of %d lists were made", begun, n))
	in := bufio.NewReader(c)
	for i := range n {
		resp, err := http.ReadResponse(in, nil)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("list %d", i))
		b, err := io.ReadAll(resp.Body)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(len(b), 5000*201), qt.Commentf("list %d", i))
	}
}
