package pasteapi

import (
	"fmt"
	"testing"

	"github.com/go-quicktest/qt"
)

// TestFrameInTwoPlaces: a buffer of a slot that is on the free list as well is
// found by the next sync in a build with the tag "invariants", and by Close in all
// others.
func TestFrameInTwoPlaces(t *testing.T) {
	r, _ := newTestRing(t)
	qt.Assert(t, qt.IsNil(r.audit()))
	frame := r.pair.tx.bufs[3]
	r.frames.Give(frame)
	want := fmt.Sprintf("accounts of the ring: frame %d: the ring owns it 1 times; places: free list, TX slot", frame)
	qt.Check(t, qt.ErrorMatches(r.audit(), want))
	if invariants {
		qt.Check(t, qt.PanicMatches(func() { _, _ = r.RxSync() }, want))
	} else {
		_, err := r.RxSync()
		qt.Check(t, qt.IsNil(err))
	}
	// It is taken away again: newTestRing closes the ring, and wants no error.
	var others []uint32
	for f, ok := r.frames.Take(); f != frame; f, ok = r.frames.Take() {
		qt.Assert(t, qt.IsTrue(ok))
		others = append(others, f)
	}
	for _, f := range others {
		r.frames.Give(f)
	}
	qt.Check(t, qt.IsNil(r.audit()))
}

// takeAll leaves a ring no frame that circulates, and the pool none. For the
// accounts they are in slots, behind those that there are.
func takeAll(r *Ring) (giveBack func()) {
	v := &r.pair.rx
	for f, ok := r.frames.Take(); ok; f, ok = r.frames.Take() {
		v.bufs = append(v.bufs, f)
	}
	return func() {
		for _, f := range v.bufs[v.slots:] {
			r.frames.Give(f)
		}
		v.bufs = v.bufs[:v.slots]
	}
}
