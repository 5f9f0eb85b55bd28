package receive

import (
	"testing"

	"github.com/pastenet/paste/bpf"
	"pgregory.net/rapid"
)

// TestTickets checks issue, claim and reclaim against a model: a ticket has
// one winner, and its slot comes back exactly once.
func TestTickets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tk := newTickets(make([]bpf.TicketEntry, 16))
		s := &Stream{}
		s.Cookie = 5
		type live struct {
			ticket  uint32
			claimed bool
		}
		var have []live
		seq := uint32(0)
		t.Repeat(map[string]func(*rapid.T){
			"issue": func(t *rapid.T) {
				id := tk.issue(s, seq, 0, 10, seq)
				if (id == 0) != (len(have) == 15) {
					t.Fatalf("ticket %x with %d in flight", id, len(have))
				}
				if id != 0 {
					for _, l := range have {
						if l.ticket&0xffff == id&0xffff {
							t.Fatalf("slot %d is in use", id&0xffff)
						}
					}
					have = append(have, live{ticket: id})
				}
				seq += 10
			},
			"claim": func(t *rapid.T) { // what the verdict program does
				if len(have) == 0 {
					t.Skip("none in flight")
				}
				l := &have[rapid.IntRange(0, len(have)-1).Draw(t, "which")]
				e := &tk.shared[l.ticket&0xffff]
				if !l.claimed && e.State != l.ticket>>16<<2|bpf.TicketInFlight {
					t.Fatalf("state %x of ticket %x", e.State, l.ticket)
				}
				e.State = l.ticket>>16<<2 | bpf.TicketDelivered
				l.claimed = true
			},
			"retire": func(t *rapid.T) {
				if len(have) == 0 {
					t.Skip("none in flight")
				}
				i := rapid.IntRange(0, len(have)-1).Draw(t, "which")
				slot := uint16(have[i].ticket)
				if won := tk.reclaim(slot); won == have[i].claimed {
					t.Fatalf("reclaim won: %v, claimed: %v", won, have[i].claimed)
				}
				tk.retire(slot)
				have = append(have[:i], have[i+1:]...)
			},
			"": func(t *rapid.T) {
				if s.tickets.n != len(have) || int(tk.count) != 15-len(have) {
					t.Fatalf("%d listed, %d free, %d in flight", s.tickets.n, tk.count, len(have))
				}
				n := 0
				for slot := s.tickets.first; slot != none; slot = tk.info[slot].next {
					n++
				}
				if n != len(have) {
					t.Fatalf("list of %d, %d in flight", n, len(have))
				}
			},
		})
	})
}

// TestReclaimOld: when all tickets are out, one of an earlier batch is taken back,
// of whoever has them; those of the batch in the making are not.
func TestReclaimOld(t *testing.T) {
	tk := newTickets(make([]bpf.TicketEntry, 16))
	hoarder, other := &Stream{}, &Stream{}
	for range 15 {
		tk.issue(hoarder, 1, 0, 10, 0)
	}
	if slot := tk.reclaimOld(); slot != none {
		t.Fatalf("ticket %d of this batch was taken back", slot)
	}
	tk.batch++
	for range 8 {
		slot := tk.reclaimOld()
		if slot == none {
			t.Fatal("no ticket was taken back")
		}
		tk.retire(slot)
		if tk.issue(other, 1, 0, 10, 0) == 0 {
			t.Fatal("no ticket after one was taken back")
		}
	}
	if hoarder.tickets.n != 7 || other.tickets.n != 8 {
		t.Fatalf("%d and %d tickets", hoarder.tickets.n, other.tickets.n)
	}
}
