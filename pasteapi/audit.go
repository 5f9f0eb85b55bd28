package pasteapi

import (
	"fmt"

	"github.com/pastenet/paste/pasteapi/internal/frames"
)

// audit looks whether every frame of the ring is in exactly one place.
func (r *Ring) audit() error {
	if r.in == nil {
		return nil // it was never finished
	}
	err := r.frames.Audit(func(v frames.Visit) {
		for _, f := range r.pair.rx.bufs {
			v(frames.RXSlot, f)
		}
		for _, f := range r.pair.tx.bufs {
			v(frames.TXSlot, f)
		}
		r.in.Visit(v)
		r.out.Visit(v)
		r.udp.in.Visit(v)
		r.udp.out.Visit(v)
	})
	if err != nil {
		return fmt.Errorf("accounts of the ring: %w", err)
	}
	return nil
}

// checkInvariants does nothing, but in a build with the tag "invariants", for
// tests: then it panics with the frame that is not where it should be.
func (r *Ring) checkInvariants() {
	if !invariants {
		return
	}
	if err := r.audit(); err != nil {
		panic(err)
	}
}
