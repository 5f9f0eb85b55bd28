package ringnet_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/pasteapi"
)

// pattern is n bytes of which each place tells where it is.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8)*3 ^ byte(i>>16)*7
	}
	return b
}

// TestPeerOfSlowReaderWaits: a peer whose connection nobody reads can send a bounded
// number of bytes; meanwhile another connection works, and then every byte is there.
func TestPeerOfSlowReaderWaits(t *testing.T) {
	const total, size = 24 << 20, 1000
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			n := open(t, pasteapi.Options{Receive: way})
			l := listen(t, n)
			slow, flood := pair(t, l)
			qt.Assert(t, qt.IsNil(slow.SetReadBuffer(64<<10)))
			qt.Assert(t, qt.IsNil(flood.SetWriteBuffer(64<<10)))
			sent := pattern(total)
			done := 0
			for stuck := false; !stuck; {
				// Small messages, which the verdict would copy without end.
				qt.Assert(t, qt.IsNil(flood.SetWriteDeadline(time.Now().Add(2*time.Second))))
				k, err := flood.Write(sent[done:min(total, done+size)])
				done += k
				if stuck = errors.Is(err, os.ErrDeadlineExceeded); !stuck {
					qt.Assert(t, qt.IsNil(err))
				}
				qt.Assert(t, qt.IsTrue(done < total), qt.Commentf("nothing holds the peer"))
			}
			qt.Check(t, qt.IsTrue(done < total/2), qt.Commentf("%d bytes were taken", done))
			other, peer := pair(t, l)
			for range 100 {
				ping(t, other, peer)
			}
			qt.Assert(t, qt.IsNil(flood.SetWriteDeadline(time.Time{})))
			ended := make(chan error, 1)
			go func() {
				_, err := flood.Write(sent[done:])
				ended <- errors.Join(err, flood.CloseWrite())
			}()
			got, err := io.ReadAll(slow)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(<-ended))
			qt.Assert(t, qt.Equals(bytes.Equal(got, sent), true), qt.Commentf("%d bytes", len(got)))
		})
	}
}

// ping sends a few bytes from peer to c and back.
func ping(t *testing.T, c, peer net.Conn) {
	t.Helper()
	var b [5]byte
	_, err := peer.Write([]byte("hello"))
	qt.Assert(t, qt.IsNil(err))
	_, err = io.ReadFull(c, b[:])
	qt.Assert(t, qt.IsNil(err))
	_, err = c.Write(b[:])
	qt.Assert(t, qt.IsNil(err))
	_, err = io.ReadFull(peer, b[:])
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(string(b[:]), "hello"))
}

// TestWriterWaitsForRoom: a write to a peer that does not read waits, ends with its
// deadline, and goes on when there is room.
func TestWriterWaitsForRoom(t *testing.T) {
	n := open(t, pasteapi.Options{})
	c, peer := pair(t, listen(t, n))
	sent := pattern(64 << 20)
	qt.Assert(t, qt.IsNil(c.SetWriteDeadline(time.Now().Add(200*time.Millisecond))))
	k, err := c.Write(sent)
	qt.Assert(t, qt.ErrorIs(err, os.ErrDeadlineExceeded))
	var op *net.OpError
	qt.Assert(t, qt.ErrorAs(err, &op))
	qt.Check(t, qt.Equals(op.Op, "write"))
	qt.Assert(t, qt.IsTrue(k < len(sent)), qt.Commentf("%d bytes", k))
	qt.Assert(t, qt.IsNil(c.SetWriteDeadline(time.Time{})))
	ended := make(chan error, 1)
	go func() {
		_, err := c.Write(sent[k:])
		ended <- errors.Join(err, c.CloseWrite())
	}()
	got, err := io.ReadAll(peer)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(<-ended))
	qt.Assert(t, qt.Equals(bytes.Equal(got, sent), true), qt.Commentf("%d bytes", len(got)))
}
