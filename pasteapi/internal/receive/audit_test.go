package receive

import (
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/pasteapi/internal/frames"
	"github.com/pastenet/paste/pmem"
)

// TestVisit: frames in all places of the receiver are shown, so that none is
// missed, and one that is in two of them is found.
func TestVisit(t *testing.T) {
	pool, err := pmem.NewMemory("receive-test", pmem.Options{Size: 4 << 20})
	qt.Assert(t, qt.IsNil(err))
	defer pool.Close()
	f := frames.New(pool)
	var frame [4]uint32
	for i := range frame {
		frame[i], _ = f.Take()
	}
	s := new(Stream)
	r := &Receiver{frames: f}
	r.steered.tickets = newTickets(make([]bpf.TicketEntry, 16))
	r.steered.holders = map[*Stream]struct{}{s: {}}
	r.copied.byCookie = map[uint64]*Stream{1: s}

	r.steered.unnamed = []uint32{frame[0]}
	s.held = []heldFrame{{frame: frame[1]}}
	r.steered.tickets.issue(s, frame[2], 0, 10, 0)
	s.push(piece{kind: inFrame, frame: frame[3]})
	s.push(piece{kind: inSocket, len: 5})
	qt.Check(t, qt.IsNil(f.Audit(r.Visit)))

	s.push(piece{kind: inFrame, frame: frame[2]})
	qt.Check(t, qt.ErrorMatches(f.Audit(r.Visit), `frame \d+: the ring owns it 1 times; places: ticket, stream`))
	s.pieces = s.pieces[:1]
	r.steered.tickets.retire(s.tickets.first)
	qt.Check(t, qt.ErrorMatches(f.Audit(r.Visit), `frame \d+: the ring owns it 1 times; places: none`))
}
