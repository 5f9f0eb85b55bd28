package contender

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// Every contender sends back what came, byte for byte, or nothing at all; and counts
// whole requests.
func TestRaw(t *testing.T) {
	each(t, func(t *testing.T, k Kind) {
		for _, raw := range []Raw{Echo, Sink} {
			addr, stats, stop := start(t, Config{Kind: k, ResponseBytes: 1000, Raw: raw})
			c, err := net.Dial("tcp", addr.String())
			qt.Assert(t, qt.IsNil(err))
			defer c.Close()
			qt.Assert(t, qt.IsNil(c.SetDeadline(time.Now().Add(3*time.Minute))))
			sent := make([]byte, 3_000_500)
			for i := range sent {
				sent[i] = byte(i * i >> 3)
			}
			// One message after the other: who sends without reading is cut off.
			for rest := sent; len(rest) > 0; {
				n := min(len(rest), 300_000)
				_, err := c.Write(rest[:n])
				qt.Assert(t, qt.IsNil(err))
				if raw == Echo {
					got := make([]byte, n)
					_, err := io.ReadFull(c, got)
					qt.Assert(t, qt.IsNil(err))
					qt.Assert(t, qt.Equals(bytes.Equal(got, rest[:n]), true), qt.Commentf("%d bytes", n))
				}
				rest = rest[n:]
			}
			qt.Assert(t, qt.IsNil(c.(*net.TCPConn).CloseWrite()))
			left, err := io.ReadAll(c)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.HasLen(left, 0))
			stop()
			qt.Check(t, qt.Equals(stats.Requests.Load(), 3000))
		}
	})
}
