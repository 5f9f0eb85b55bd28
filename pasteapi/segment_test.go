package pasteapi

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// TestSegments: what a peer sends comes as segments, in order, and then the close
// notice with its cause; a loop that is left goes on where it was.
func TestSegments(t *testing.T) {
	r, _ := newTestRing(t)
	fd, peer := tcpPair(t)
	defer unix.Close(fd)
	qt.Assert(t, qt.IsNil(r.Register(fd)))
	var got []byte
	closed := 0
	for i := range 20 {
		_, err := peer.Write([]byte{byte(i)})
		qt.Assert(t, qt.IsNil(err))
	}
	qt.Assert(t, qt.IsNil(peer.CloseWrite()))
	for closed == 0 {
		_, err := r.Poll(-1)
		qt.Assert(t, qt.IsNil(err))
		for seg := range r.Segments() {
			qt.Assert(t, qt.Equals(seg.Fd(), fd))
			if seg.Closed() {
				qt.Check(t, qt.IsNil(seg.Cause()))
				closed++
				break
			}
			got = append(got, seg.Payload()...)
			qt.Check(t, qt.IsTrue(seg.Copied()))
			if len(got)%3 == 0 {
				break
			}
		}
	}
	qt.Check(t, qt.HasLen(got, 20))
	for i, b := range got {
		qt.Check(t, qt.Equals(int(b), i))
	}
	qt.Assert(t, qt.IsNil(r.Unregister(fd)))
}

// TestSegmentKeep: a kept payload stays what it was, and is the caller's.
func TestSegmentKeep(t *testing.T) {
	r, pool := newTestRing(t)
	fd, peer := tcpPair(t)
	defer unix.Close(fd)
	qt.Assert(t, qt.IsNil(r.Register(fd)))
	_, err := peer.Write([]byte("to be kept"))
	qt.Assert(t, qt.IsNil(err))
	_, err = r.Poll(-1)
	qt.Assert(t, qt.IsNil(err))
	n := 0
	for seg := range r.Segments() {
		n++
		frag, err := seg.Keep()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(string(seg.Payload()), "to be kept"))
		_, err = r.Poll(0)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(string(pool.Frame(frag.Frame)[frag.Off:][:frag.Len]), "to be kept"))
		qt.Check(t, qt.Equals(pool.Refs(frag.Frame), 1))
		pool.Unref(frag.Frame)
	}
	qt.Check(t, qt.Equals(n, 1))
	qt.Assert(t, qt.IsNil(r.Unregister(fd)))
}

// TestKeepForeignBuffer: Keep of a slot into which the application has put
// another buffer, that no sync has seen, is refused.
func TestKeepForeignBuffer(t *testing.T) {
	r, _ := newTestRing(t)
	in, out := r.RX().Slot(0), r.TX().Slot(0)
	in.BufIdx, out.BufIdx = out.BufIdx, in.BufIdx
	_, err := r.Keep(in)
	qt.Check(t, qt.ErrorIs(err, ErrRingCorrupt))
	in.BufIdx, out.BufIdx = out.BufIdx, in.BufIdx
}

// TestReplyAndForward: both ways of answering arrive, in the order of the calls.
func TestReplyAndForward(t *testing.T) {
	r, _ := newTestRing(t)
	fd, peer := tcpPair(t)
	defer unix.Close(fd)
	qt.Assert(t, qt.IsNil(r.Register(fd)))
	_, err := peer.Write([]byte("echo"))
	qt.Assert(t, qt.IsNil(err))
	_, err = r.Poll(-1)
	qt.Assert(t, qt.IsNil(err))
	for seg := range r.Segments() {
		qt.Assert(t, qt.IsNil(seg.Reply([]byte("<"))))
		qt.Assert(t, qt.IsNil(seg.Forward(seg.Fd())))
		qt.Assert(t, qt.IsNil(seg.Reply([]byte(">"))))
	}
	_, err = r.Poll(0)
	qt.Assert(t, qt.IsNil(err))
	b := make([]byte, 6)
	_, err = io.ReadFull(peer, b)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(b), "<echo>"))
	qt.Assert(t, qt.IsNil(r.Unregister(fd)))
}

// TestSendFull: what does not fit the TX ring is refused whole.
func TestSendFull(t *testing.T) {
	r, _ := newTestRing(t)
	size := int(r.TX().NrBufSize)
	qt.Check(t, qt.ErrorMatches(r.Send(-1, make([]byte, 64*size)), "send 131072 bytes: a ring of 64 slots takes 129024 at once"))
	qt.Assert(t, qt.IsNil(r.Send(-1, make([]byte, 62*size))))
	qt.Check(t, qt.ErrorIs(r.Send(-1, make([]byte, size+1)), ErrTxFull))
	qt.Check(t, qt.Equals(r.TX().Space(), 1))
	qt.Check(t, qt.IsNil(r.Send(-1, make([]byte, size))))
	qt.Check(t, qt.ErrorIs(r.Send(-1, []byte{1}), ErrTxFull))
	qt.Check(t, qt.IsNil(r.Send(-1, nil)))
	qt.Assert(t, qt.IsNil(r.TxSync()))
	qt.Check(t, qt.Equals(r.count().TxDropped, 63))
}

// TestSegmentsDoNotAllocate: the layer costs nothing beside the slots.
func TestSegmentsDoNotAllocate(t *testing.T) {
	r, _ := newTestRing(t)
	v := &r.pair.rx
	total := 0
	allocs := testing.AllocsPerRun(100, func() {
		v.tail = (v.head + 40) % v.slots
		v.ring.Tail = v.tail
		for seg := range r.Segments() {
			total += len(seg.Payload())
			if !seg.Closed() {
				_ = seg.Reply(seg.Payload())
			}
		}
		v.head = v.ring.Head
	})
	qt.Check(t, qt.Equals(allocs, 0))
}

// TestStamp: a sync that moves a ring writes its time into the header.
func TestStamp(t *testing.T) {
	r, _ := newTestRing(t)
	before := time.Now().Unix()
	qt.Assert(t, qt.IsNil(r.Send(-1, []byte{1})))
	qt.Assert(t, qt.IsNil(r.TxSync()))
	qt.Check(t, qt.IsTrue(r.TX().TsSec >= before && r.TX().TsSec <= time.Now().Unix()), qt.Commentf("%d", r.TX().TsSec))
	qt.Check(t, qt.IsTrue(r.TX().TsUsec >= 0 && r.TX().TsUsec < 1_000_000), qt.Commentf("%d", r.TX().TsUsec))
}

// TestSlotFlags: flags that mean nothing on a connection are refused by name.
func TestSlotFlags(t *testing.T) {
	r, _ := newTestRing(t)
	for flag, refused := range map[uint16]bool{
		NS_INDIRECT: true, NS_FORWARD: true, NS_NO_LEARN: true, NS_TXMON: true, NS_REPORT: false, NS_MOREFRAG: false,
	} {
		qt.Assert(t, qt.IsNil(r.Send(-1, []byte{1})))
		r.TX().Slot((r.TX().Head + 63) % 64).Flags |= flag
		err := r.TxSync()
		if !refused {
			qt.Check(t, qt.IsNil(err))
			continue
		}
		var broken *RingError
		qt.Assert(t, qt.IsTrue(errors.As(err, &broken)), qt.Commentf("%#x: %v", flag, err))
		qt.Check(t, qt.StringContains(err.Error(), "NS_INDIRECT"))
	}
}

// TestSetDoffRefuses: an offset that does not fit is no other offset.
func TestSetDoffRefuses(t *testing.T) {
	for _, doff := range []int{-1, MaxDoff + 1, 2000} {
		qt.Check(t, qt.PanicMatches(func() { new(Slot).SetDoff(doff) }, "pasteapi: doff .*: must be from 0 to 1023"))
	}
}
