package httpd

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// begin sends half of a request and waits until the server has it.
func (f *fixture) begin(half string) *net.TCPConn {
	f.t.Helper()
	c := f.dial()
	_, err := io.WriteString(c, post("first")+half)
	qt.Assert(f.t, qt.IsNil(err))
	b := make([]byte, len(created(1)))
	_, err = io.ReadFull(c, b)
	qt.Assert(f.t, qt.IsNil(err))
	eventually(f.t, "half a request is there", func() bool { return f.srv.Stats().Batches > 0 })
	return c
}

// TestDrain: who has begun a request when the server is told to end may finish
// it; who has not is told to go, and nobody gets in.
func TestDrain(t *testing.T) {
	for _, half := range []string{"POST / HTTP/1.1\r\nHost: x\r\nContent-Len", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nsec"} {
		f := serve(t, setup{cfg: Config{DrainTimeout: time.Hour}})
		idle := f.dial()
		_, err := io.WriteString(idle, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(readSome(idle)))
		c := f.begin(half)
		f.cancel()
		rest, err := io.ReadAll(idle)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(string(rest), ""))
		eventually(t, "nobody gets in", func() bool {
			late, err := net.Dial("tcp", f.addr)
			if err == nil {
				late.Close()
			}
			return err != nil
		})
		_, err = io.WriteString(c, strings.TrimPrefix("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nsecond", half)+post("too late"))
		qt.Assert(t, qt.IsNil(err))
		out, err := io.ReadAll(c)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(string(out), "HTTP/1.1 201 Created\r\nConnection: close\r\nX-Paste-Seq: 2\r\nContent-Length: 2\r\n\r\n2\n"))
		qt.Assert(t, qt.DeepEquals(f.records(), []string{"first", "second"}))
	}
}

// TestDrainLimit: who does not finish in time is cut off.
func TestDrainLimit(t *testing.T) {
	f := serve(t, setup{cfg: Config{DrainTimeout: 50 * time.Millisecond}})
	c := f.begin("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nsec")
	f.stop()
	out, err := io.ReadAll(c)
	qt.Assert(t, qt.IsTrue(len(out) == 0), qt.Commentf("%q, %v", out, err))
	qt.Assert(t, qt.DeepEquals(f.records(), []string{"first"}))
}

// TestDrainWaiting: a connection that waits to be accepted is served.
func TestDrainWaiting(t *testing.T) {
	f := prepare(t, setup{cfg: Config{DrainTimeout: time.Hour, ResponseBytes: 8}})
	c := f.dial()
	_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	qt.Assert(t, qt.IsNil(err))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	f.run(ctx)
	out, err := io.ReadAll(c)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(strings.HasPrefix(string(out), "HTTP/1.1 200 OK\r\n")), qt.Commentf("%q", out))
}

func readSome(r io.Reader) error {
	_, err := r.Read(make([]byte, 4096))
	return err
}
