package pasteapi

import (
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// TestEndWaitsForBytes: the end of a connection is seen while there is no frame
// for the bytes before it. It comes behind them all the same, with its cause.
func TestEndWaitsForBytes(t *testing.T) {
	for name, end := range map[string]struct {
		linger int // -1: an orderly end
		state  uint8
		cause  error
	}{
		"fin":   {-1, 8, nil}, // TCP_CLOSE_WAIT
		"reset": {0, unix.BPF_TCP_CLOSE, unix.ECONNRESET},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := newTestRing(t)
			fd, peer := tcpPair(t)
			defer unix.Close(fd)
			qt.Assert(t, qt.IsNil(r.Register(fd)))
			_, err := r.Poll(0)
			qt.Assert(t, qt.IsNil(err))
			giveBack := takeAll(r)

			_, err = peer.Write([]byte("last words"))
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(peer.SetLinger(end.linger)))
			qt.Assert(t, qt.IsNil(peer.Close()))
			waitState(t, fd, end.state)
			for range 3 * checkEvery {
				n, err := r.Poll(0)
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.Equals(n, 0))
			}

			giveBack()
			var got []byte
			for open := true; open; {
				_, err := r.Poll(-1)
				qt.Assert(t, qt.IsNil(err))
				for ; !r.RX().Empty(); r.RX().Head, r.RX().Cur = r.RX().Next(r.RX().Head), r.RX().Next(r.RX().Head) {
					s := r.RX().Slot(r.RX().Head)
					qt.Assert(t, qt.IsTrue(open), qt.Commentf("something behind the end"))
					got = append(got, r.RX().Payload(s)...)
					open = int(s.Len) > s.Doff()
				}
			}
			qt.Check(t, qt.Equals(string(got), "last words"))
			qt.Check(t, qt.Equals(r.CloseCause(fd), end.cause))
			qt.Assert(t, qt.IsNil(r.Unregister(fd)))
		})
	}
}
