package frames

import (
	"fmt"
	"strings"
)

// Place is where a frame of a ring is.
type Place uint8

const (
	Free    Place = iota // circulates, and is nowhere at the moment
	Parked               // the same: its slot has a run instead
	Shelf                // the same, and cold
	Reserve              // for Replace
	Posted               // with the NIC
	Held                 // received, and not injected yet
	Unnamed              // in the injection batch, without a ticket
	Ticket               // injected, and not accepted by TCP yet
	Piece                // accepted, and not in a slot yet
	Batch                // to be read into
	Waiting              // to be sent, when its socket has room
	RXSlot
	TXSlot
	places
)

var placeNames = [places]string{"free list", "parked", "shelf", "reserve", "NIC", "held", "injection batch", "ticket",
	"stream", "read batch", "waiting to be sent", "RX slot", "TX slot"}

func (p Place) String() string { return placeNames[p] }

// inner says whether a frame in a place is the ring's alone. In the others the
// application has a say: one buffer is sent from several slots, and of two slots
// whose buffers were swapped a sync sees one first.
func (p Place) inner() bool { return p < Waiting }

// counted says whether frames in a place are in the set of those owned. Replace
// has let the others out of it, or not yet in.
func (p Place) counted() bool { return p != Reserve && p != Waiting }

// Visit is told of a frame in a place.
type Visit func(Place, uint32)

// tally is how often a frame was seen.
type tally struct{ counted, inner, waiting uint16 }

// Audit looks whether every frame is in exactly one place. others shows the frames
// in the places that are not of this package. It may be called whenever no frame
// is on its way from one place to another, which is between two calls of the
// application. An error names the first wrong frame and its places. The time it
// takes goes with the size of the pool.
func (f *Frames) Audit(others func(Visit)) error {
	seen := make([]tally, len(f.owned))
	f.visit(others, func(p Place, frame uint32) {
		t := &seen[frame]
		if p.counted() {
			t.counted++
		}
		if p.inner() {
			t.inner++
		}
		if p == Waiting {
			t.waiting++
		}
	})
	for i, t := range seen {
		frame := uint32(i)
		switch {
		case t.counted != f.owned[i]:
			return f.wrong(frame, fmt.Sprintf("the ring owns it %d times", f.owned[i]), others)
		case t.inner > 1:
			return f.wrong(frame, "it may be in one of them", others)
		case t.inner > 0 && t.waiting > 0:
			return f.wrong(frame, "what is to be sent may be nowhere else", others)
		case t != tally{} && f.pool.Refs(frame) == 0:
			return f.wrong(frame, "the pool has it as free", others)
		}
	}
	return nil
}

// visit shows all frames.
func (f *Frames) visit(others func(Visit), v Visit) {
	for p, list := range [][]uint32{Free: f.free, Shelf: f.cold, Reserve: f.reserve} {
		for _, frame := range list {
			v(Place(p), frame)
		}
	}
	for _, head := range f.runs.free {
		f.runs.visit(Free, head, v)
	}
	for _, frame := range f.runs.home {
		v(Parked, frame)
	}
	for i := range f.owned {
		if f.posted[i/64]&(1<<(i%64)) != 0 {
			v(Posted, uint32(i))
		}
	}
	others(func(p Place, frame uint32) {
		if p != TXSlot && f.runs.is(frame) {
			f.runs.visit(p, frame, v)
		} else {
			v(p, frame)
		}
	})
}

// wrong describes a frame that is not where it should be.
func (f *Frames) wrong(frame uint32, why string, others func(Visit)) error {
	var in []string
	f.visit(others, func(p Place, other uint32) {
		if other == frame {
			in = append(in, p.String())
		}
	})
	if in == nil {
		in = []string{"none"}
	}
	return fmt.Errorf("frame %d: %s; places: %s", frame, why, strings.Join(in, ", "))
}
