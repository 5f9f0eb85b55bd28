package kvd

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// Requests that follow each other in one segment share its buffer.
func TestPipelined(t *testing.T) {
	s := open(t, 32<<20)
	c, err := s.lab.Client.DialContext(context.Background(), "tcp", s.addr)
	qt.Assert(t, qt.IsNil(err))
	defer c.Close()
	qt.Assert(t, qt.IsNil(c.SetDeadline(time.Now().Add(3*time.Minute))))
	in := bufio.NewReader(c)
	read := func(method string, code int, want []byte) {
		t.Helper()
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		qt.Assert(t, qt.IsNil(err))
		b, err := io.ReadAll(resp.Body)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(resp.StatusCode, code))
		qt.Assert(t, qt.IsTrue(want == nil || bytes.Equal(b, want)), qt.Commentf("%q", b))
	}
	for round := range 20 {
		var out bytes.Buffer
		sizes := []int{400, 300, 10, 500, 700, 1400, 90, 350}
		for i, n := range sizes {
			v := pattern(n, uint64(round))
			fmt.Fprintf(&out, "PUT /k/p%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", i, n, v)
			fmt.Fprintf(&out, "GET /k/p%d HTTP/1.1\r\nHost: x\r\n\r\n", i)
		}
		for i := range sizes {
			fmt.Fprintf(&out, "GET /k/p%d HTTP/1.1\r\nHost: x\r\n\r\n", i)
		}
		_, err := c.Write(out.Bytes())
		qt.Assert(t, qt.IsNil(err))
		for _, n := range sizes {
			code := 204
			if round == 0 {
				code = 201
			}
			read("PUT", code, nil)
			read("GET", 200, pattern(n, uint64(round)))
		}
		for _, n := range sizes {
			read("GET", 200, pattern(n, uint64(round)))
		}
	}
}

// A client that asks for many large values at once, and reads, gets all of them,
// and what it asked for behind them.
func TestPipelinedLargeValues(t *testing.T) {
	s := open(t, 64<<20)
	v := pattern(3_000_000, 1)
	code, _ := s.do("PUT", "/k/large", v)
	qt.Assert(t, qt.Equals(code, 201))
	c, err := s.lab.Client.DialContext(context.Background(), "tcp", s.addr)
	qt.Assert(t, qt.IsNil(err))
	defer c.Close()
	qt.Assert(t, qt.IsNil(c.SetDeadline(time.Now().Add(3*time.Minute))))
	const n = 40
	behind := pattern(200_000, 2)
	go func() {
		fmt.Fprint(c, strings.Repeat("GET /k/large HTTP/1.1\r\nHost: x\r\n\r\n", n))
		fmt.Fprintf(c, "PUT /k/behind HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%sGET /k/behind HTTP/1.1\r\nHost: x\r\n\r\n", len(behind), behind)
	}()
	in := bufio.NewReader(c)
	for i := range n + 2 {
		code, want := 200, v
		switch i {
		case n:
			code, want = 201, nil
		case n + 1:
			want = behind
		}
		resp, err := http.ReadResponse(in, nil)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("answer %d", i))
		b, err := io.ReadAll(resp.Body)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("answer %d", i))
		qt.Assert(t, qt.Equals(resp.StatusCode, code))
		qt.Assert(t, qt.IsTrue(bytes.Equal(b, want)), qt.Commentf("answer %d: %d bytes", i, len(b)))
	}
}
