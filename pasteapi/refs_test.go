package pasteapi

import (
	"errors"
	"testing"

	"github.com/go-quicktest/qt"
)

// TestPollReportsBothRings breaks both rings between two Polls: one error tells
// of both, and one Poll repairs both.
func TestPollReportsBothRings(t *testing.T) {
	r, _ := newTestRing(t)
	r.pair.rx.tail, r.RX().Tail = 10, 10
	r.RX().Head, r.TX().Head = 64, 65
	n, err := r.Poll(0)
	qt.Assert(t, qt.ErrorIs(err, ErrRingCorrupt))
	broken := map[string]uint64{}
	joined, ok := err.(interface{ Unwrap() []error })
	qt.Assert(t, qt.IsTrue(ok), qt.Commentf("%v", err))
	for _, err := range joined.Unwrap() {
		var re *RingError
		qt.Assert(t, qt.IsTrue(errors.As(err, &re)))
		broken[re.Ring+" "+re.Field] = re.Value
	}
	qt.Check(t, qt.DeepEquals(broken, map[string]uint64{"rx head": 64, "tx head": 65}))
	qt.Check(t, qt.Equals(n, 0))

	// With the TX ring alone broken, what was received is reported with it.
	r.TX().Cur = 99
	n, err = r.Poll(0)
	qt.Check(t, qt.ErrorIs(err, ErrRingCorrupt))
	qt.Check(t, qt.Equals(n, 10))

	n, err = r.Poll(0)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(n, 10))
}

// TestCloseReturnsReferences closes a ring with frames in several TX slots, and
// with buffers exchanged after the last sync: what the ring holds goes back, as
// often as it holds it. newTestRing checks the pool afterwards.
func TestCloseReturnsReferences(t *testing.T) {
	r, pool := newTestRing(t)
	var f [1]uint32
	qt.Assert(t, qt.Equals(pool.Alloc(f[:]), 1))
	var displaced []uint32
	send := func() {
		s := r.TX().Slot(r.TX().Head)
		pool.Ref(f[0])
		displaced = append(displaced, s.BufIdx)
		s.BufIdx, s.Len = f[0], 10
		s.SetFd(-1)
		r.TX().Head = r.TX().Next(r.TX().Head)
		r.TX().Cur = r.TX().Head
	}
	for range 40 {
		send()
	}
	qt.Assert(t, qt.IsNil(r.TxSync()))
	for range 10 {
		send() // not seen by a sync
	}
	// One half of a swap between the rings is seen by a sync, the other is not.
	r.pair.rx.tail, r.RX().Tail = 2, 2
	in, out := r.RX().Slot(0), r.TX().Slot(r.TX().Head)
	in.BufIdx, out.BufIdx = out.BufIdx, in.BufIdx
	out.Len = 0
	out.SetDoff(0)
	r.RX().Head, r.RX().Cur = 1, 1
	r.TX().Head = r.TX().Next(r.TX().Head)
	r.TX().Cur = r.TX().Head
	qt.Assert(t, qt.IsNil(r.TxSync()))
	pool.UnrefAll(displaced)
	qt.Assert(t, qt.Equals(pool.Refs(f[0]), 51))
	qt.Assert(t, qt.IsNil(r.close()))
	qt.Check(t, qt.Equals(pool.Refs(f[0]), 1))
	pool.Unref(f[0])
}
