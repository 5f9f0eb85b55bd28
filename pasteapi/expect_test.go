package pasteapi

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/pmem"
	"golang.org/x/sys/unix"
)

// numbered is n bytes that are like no others around them.
func numbered(n int) []byte {
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "%d,", b.Len())
	}
	return b.Bytes()[:n]
}

// receiveAll polls until n bytes have come, and hands every segment to see.
func receiveAll(t *testing.T, r *Ring, n int, see func(Segment)) {
	t.Helper()
	for end := time.Now().Add(time.Minute); n > 0; {
		qt.Assert(t, qt.IsTrue(time.Now().Before(end)))
		_, err := r.Poll(time.Second)
		qt.Assert(t, qt.IsNil(err))
		for seg := range r.Segments() {
			n -= len(seg.Payload())
			see(seg)
		}
	}
	qt.Assert(t, qt.IsNil(r.audit()))
}

// settled waits until n bytes wait in a socket.
func settled(t *testing.T, fd, n int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		waiting, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
		qt.Assert(t, qt.IsNil(err))
		if waiting >= n {
			return
		}
		qt.Assert(t, qt.IsTrue(time.Now().Before(end)))
	}
}

func announced(t *testing.T, slots int) (r *Ring, pool *pmem.Pool, fd int, peer *net.TCPConn) {
	r, pool = newTestRing(t, func(o *Options) { o.Slots = slots })
	fd, peer = tcpPair(t)
	t.Cleanup(func() { unix.Close(fd) })
	qt.Assert(t, qt.IsNil(r.Register(fd)))
	return r, pool, fd, peer
}

// TestExpect: what was announced comes as one segment, as far as it was there, and
// that says whether more follows.
func TestExpect(t *testing.T) {
	r, _, fd, peer := announced(t, 64)
	want := numbered(100_000)
	qt.Assert(t, qt.IsNil(r.Expect(fd, 100_000)))
	_, err := peer.Write(want[:60_000])
	qt.Assert(t, qt.IsNil(err))
	settled(t, fd, 60_000)
	var got []byte
	var sizes []int
	var more []bool
	see := func(seg Segment) {
		got = append(got, seg.Payload()...)
		sizes, more = append(sizes, len(seg.Payload())), append(more, seg.More())
	}
	receiveAll(t, r, 60_000, see)
	_, err = peer.Write(want[60_000:])
	qt.Assert(t, qt.IsNil(err))
	settled(t, fd, 40_000)
	receiveAll(t, r, 40_000, see)
	qt.Check(t, qt.IsTrue(bytes.Equal(got, want)))
	qt.Check(t, qt.DeepEquals(sizes, []int{60_000, 40_000}))
	qt.Check(t, qt.DeepEquals(more, []bool{true, false}))
	qt.Assert(t, qt.IsNil(r.Unregister(fd)))
}

// TestExpectNothing: who announces nothing gets no slot that is longer than a frame.
func TestExpectNothing(t *testing.T) {
	r, _, fd, peer := announced(t, 64)
	want := numbered(60_000)
	_, err := peer.Write(want)
	qt.Assert(t, qt.IsNil(err))
	var got []byte
	receiveAll(t, r, len(want), func(seg Segment) {
		got = append(got, seg.Payload()...)
		qt.Check(t, qt.IsTrue(int(seg.Slot().Len) <= int(r.RX().NrBufSize)))
		qt.Check(t, qt.IsFalse(seg.More()))
	})
	qt.Check(t, qt.IsTrue(bytes.Equal(got, want)))
	qt.Assert(t, qt.IsNil(r.Unregister(fd)))
}

// TestExpectKeep: a long segment is kept whole, one fragment for each frame, and stays
// what it is when its slot is used again and again.
func TestExpectKeep(t *testing.T) {
	r, pool, fd, peer := announced(t, 64)
	free := pool.Free()
	qt.Assert(t, qt.IsNil(r.Expect(fd, math.MaxInt64)))
	var kept [][]pmem.Fragment
	var want [][]byte
	for i := range 6 {
		data := numbered(10_000 * (i + 1))[i:]
		_, err := peer.Write(data)
		qt.Assert(t, qt.IsNil(err))
		settled(t, fd, len(data))
		receiveAll(t, r, len(data), func(seg Segment) {
			_, err := seg.Keep()
			qt.Check(t, qt.ErrorIs(err, ErrLongSegment))
			frags, err := seg.KeepAll(nil)
			qt.Assert(t, qt.IsNil(err))
			kept, want = append(kept, frags), append(want, bytes.Clone(seg.Payload()))
			_, err = seg.KeepAll(nil)
			qt.Check(t, qt.ErrorIs(err, ErrRingCorrupt))
		})
	}
	for range 20 { // the buffers that the ring has kept are written over
		_, err := peer.Write(make([]byte, 60_000))
		qt.Assert(t, qt.IsNil(err))
		receiveAll(t, r, 60_000, func(Segment) {})
	}
	for i, frags := range kept {
		var got []byte
		for _, f := range frags {
			qt.Check(t, qt.Equals(pool.Refs(f.Frame), 1))
			got = append(got, pool.Frame(f.Frame)[f.Off:][:f.Len]...)
			pool.Unref(f.Frame)
		}
		qt.Check(t, qt.IsTrue(bytes.Equal(got, want[i])), qt.Commentf("%d", i))
	}
	qt.Assert(t, qt.IsNil(r.Unregister(fd)))
	qt.Check(t, qt.IsTrue(pool.Free() > free-3000), qt.Commentf("%d of %d frames are free", pool.Free(), free))
}

// TestExpectTaken: bytes that are in the ring already count, those that were taken out
// do not.
func TestExpectTaken(t *testing.T) {
	r, _, fd, peer := announced(t, 64)
	_, err := peer.Write(numbered(10_000))
	qt.Assert(t, qt.IsNil(err))
	settled(t, fd, 10_000)
	_, err = r.Poll(time.Minute)
	qt.Assert(t, qt.IsNil(err))
	s := &r.conns.Find(fd).in
	left := func() int64 { return 10_000 - int64(s.Handed()) + r.pair.rx.untaken(fd, s.Handed()) }
	qt.Check(t, qt.Equals(left(), 10_000))
	for seg := range r.Segments() {
		qt.Check(t, qt.Equals(left(), 10_000-int64(len(seg.Payload()))))
		break
	}
	r.RX().Slot(0).SetFd(fd + 1) // without the slot before, all are looked at
	qt.Check(t, qt.Equals(left(), 10_000-int64(len(r.RX().Payload(r.RX().Slot(0))))))
	r.RX().Head += 100
	qt.Check(t, qt.Equals(r.pair.rx.untaken(fd, s.Handed()), 0))
	r.RX().Head -= 100
	for range r.Segments() {
	}
	qt.Check(t, qt.Equals(left(), 0))
	qt.Assert(t, qt.IsNil(r.Unregister(fd)))
}

// TestExpectEnds: a connection that ends early brings what has come, and its end with
// the cause.
func TestExpectEnds(t *testing.T) {
	for _, reset := range []bool{false, true} {
		r, _, fd, peer := announced(t, 64)
		qt.Assert(t, qt.IsNil(r.Expect(fd, 1<<40)))
		_, err := peer.Write(numbered(30_000))
		qt.Assert(t, qt.IsNil(err))
		settled(t, fd, 30_000)
		n := 0
		receiveAll(t, r, 30_000, func(seg Segment) {
			n += len(seg.Payload())
			qt.Check(t, qt.IsTrue(seg.More()))
		})
		if reset {
			qt.Assert(t, qt.IsNil(peer.SetLinger(0)))
		}
		qt.Assert(t, qt.IsNil(peer.Close()))
		for ended := false; !ended; {
			_, err = r.Poll(time.Minute)
			qt.Assert(t, qt.IsNil(err))
			for seg := range r.Segments() {
				qt.Check(t, qt.IsTrue(seg.Closed()))
				qt.Check(t, qt.Equals(seg.Cause() == unix.ECONNRESET, reset), qt.Commentf("%v", seg.Cause()))
				ended = true
			}
		}
		qt.Assert(t, qt.IsNil(r.Unregister(fd)))
	}
}

// TestExpectForward: a long segment is sent back whole.
func TestExpectForward(t *testing.T) {
	r, _, fd, peer := announced(t, 64)
	qt.Assert(t, qt.IsNil(r.Expect(fd, math.MaxInt64)))
	want := numbered(50_000)
	_, err := peer.Write(want)
	qt.Assert(t, qt.IsNil(err))
	settled(t, fd, len(want))
	receiveAll(t, r, len(want), func(seg Segment) { qt.Check(t, qt.IsNil(seg.Forward(fd))) })
	qt.Assert(t, qt.IsNil(r.TxSync()))
	got := make([]byte, len(want))
	_, err = io.ReadFull(peer, got)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(bytes.Equal(got, want)))
	qt.Assert(t, qt.IsNil(r.Unregister(fd)))
}

// TestExpectSwap: who exchanges the buffer of a long slot by hand has all frames of it.
func TestExpectSwap(t *testing.T) {
	r, pool, fd, peer := announced(t, 64)
	qt.Assert(t, qt.IsNil(r.Expect(fd, math.MaxInt64)))
	_, err := peer.Write(numbered(50_000))
	qt.Assert(t, qt.IsNil(err))
	settled(t, fd, 50_000)
	receiveAll(t, r, 50_000, func(seg Segment) {
		s := seg.Slot()
		qt.Assert(t, qt.IsTrue(s.Flags&NS_RUN != 0))
		first := s.BufIdx
		var mine [1]uint32
		qt.Assert(t, qt.Equals(pool.Alloc(mine[:]), 1))
		s.BufIdx, s.Flags = mine[0], s.Flags|NS_BUF_CHANGED
		_, err := r.RxSync()
		qt.Assert(t, qt.IsNil(err))
		for i := range 1 << 16 / r.RX().NrBufSize {
			pool.Unref(first + i) // panics if it is not the caller's
		}
	})
	qt.Assert(t, qt.IsNil(r.Unregister(fd)))
}

// TestExpectRefuses: what cannot be is refused by name.
func TestExpectRefuses(t *testing.T) {
	r, _, fd, _ := announced(t, 64)
	qt.Check(t, qt.ErrorIs(r.Expect(fd, -1), ErrExpect))
	qt.Check(t, qt.ErrorIs(r.Expect(fd+100, 1), ErrNotRegistered))
	qt.Check(t, qt.IsNil(r.Expect(fd, 0)))
	qt.Assert(t, qt.IsNil(r.Unregister(fd)))
	qt.Check(t, qt.ErrorIs(r.Expect(fd, 1), ErrNotRegistered))
}
