package httpd

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

const halfBody = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"

// TestVethSlowClients: clients that keep the server waiting are sent away, in
// whatever way they do it, and what they held is free again.
func TestVethSlowClients(t *testing.T) {
	l := newLab(t)
	limit := time.Second
	s := open(t, l, l.ServerDev, l.ServerIP4, Config{
		ResponseBytes: 100_000, HeaderTimeout: limit, IdleTimeout: limit, StallTimeout: limit,
	}, 64<<20)
	for _, tc := range []struct{ name, in, out string }{
		{"says nothing", "", ""},
		{"half a header", "GET / HTTP/1.1\r\nHost", "HTTP/1.1 408 "},
		{"half a body", halfBody + strings.Repeat("b", 20_000), "HTTP/1.1 408 "},
		{"half a chunked body", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n100\r\nb", "HTTP/1.1 408 "},
		{"waits for nothing", post("x"), created(1)},
		{"half a second header", post("x") + "GET / HT", created(2) + "HTTP/1.1 408 "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := s.dial()
			_, err := io.WriteString(c, tc.in)
			qt.Assert(t, qt.IsNil(err))
			out, err := io.ReadAll(c)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.Equals(string(out[:min(len(out), len(tc.out))]), tc.out))
			qt.Assert(t, qt.Equals(strings.Contains(string(out), " 408 "), strings.Contains(tc.out, " 408 ")))
		})
	}
	t.Run("a byte now and then", func(t *testing.T) { byteNowAndThen(t, s) })
	t.Run("many that do not read", func(t *testing.T) {
		gets := strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 35)
		for range 20 {
			c := s.dial()
			qt.Assert(t, qt.IsNil(c.SetReadBuffer(4096)))
			_, err := io.WriteString(c, gets) // 3.5 MB of answers
			qt.Assert(t, qt.IsNil(err))
		}
		eventually(t, "all are closed", func() bool { return s.srv.Stats().Connections == 0 })
	})
	t.Run("many with half a request", func(t *testing.T) {
		for range 500 {
			_, err := io.WriteString(s.dial(), halfBody+strings.Repeat("b", 60_000))
			qt.Assert(t, qt.IsNil(err))
		}
		eventually(t, "all are closed", func() bool { return s.srv.Stats().Connections == 0 })
		// The rings and the NIC have theirs; the bodies would hold 20000.
		used := int(s.pool.Frames()) - s.pool.Free()
		qt.Check(t, qt.IsTrue(used < 10_000), qt.Commentf("%d frames", used))
	})
	// Who holds most loses first when frames run low, and may not live to its limit.
	given := s.port.Status().Stats.TxFailed
	qt.Assert(t, qt.IsTrue(s.srv.Stats().TimedOut+given >= 527), qt.Commentf("%d, %+v", given, s.srv.Stats()))
	_, _, err := put(s.client(), s.url(), 100, 1, false)
	qt.Assert(t, qt.IsNil(err))
}

// byteNowAndThen sends a header byte by byte until the server has enough.
func byteNowAndThen(t *testing.T, s *site) {
	before := s.srv.Stats().TimedOut
	c := s.dial()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, b := range []byte("GET / HTTP/1.1\r\nHost: " + strings.Repeat("x", 1<<20)) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	_, err := io.Copy(io.Discard, c)
	c.Close()
	<-done
	// The server has closed it, by an end of stream or a reset, long before the
	// client's own deadline.
	qt.Assert(t, qt.IsTrue(err == nil || errors.Is(err, syscall.ECONNRESET)), qt.Commentf("%v", err))
	eventually(t, "it counts as timed out", func() bool { return s.srv.Stats().TimedOut == before+1 })
}
