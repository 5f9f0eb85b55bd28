package frames

import (
	"testing"

	"github.com/go-quicktest/qt"
)

// TestAudit: a frame that is in two places, or in none, is found and named.
func TestAudit(t *testing.T) {
	for _, c := range []struct {
		name   string
		spoil  func(f *Frames, a, b uint32)
		others func(v Visit, a, b uint32)
		want   string
	}{
		{name: "right", others: func(v Visit, a, b uint32) { v(Ticket, a); v(RXSlot, b) }},
		{name: "given twice", spoil: func(f *Frames, a, b uint32) { f.Give(a); f.Give(b); f.Give(a) }, want: "the ring owns it 1 times; places: free list, free list"},
		{name: "given, and in a ticket", spoil: func(f *Frames, a, b uint32) { f.Give(a); f.Give(b) },
			others: func(v Visit, a, _ uint32) { v(Ticket, a) }, want: "places: free list, ticket"},
		{name: "lost", others: func(v Visit, a, _ uint32) { v(Held, a) }, want: "the ring owns it 1 times; places: none"},
		{name: "shown in two slots, which may be", spoil: func(f *Frames, a, _ uint32) { f.owned.add(a) },
			others: func(v Visit, a, b uint32) { v(RXSlot, a); v(TXSlot, a); v(Piece, b) }},
		{name: "owned twice, in circulation twice", spoil: func(f *Frames, a, _ uint32) { f.owned.add(a) },
			others: func(v Visit, a, b uint32) { v(Held, a); v(Ticket, a); v(Piece, b) }, want: "it may be in one of them; places: held, ticket"},
		{name: "received into while it waits", others: func(v Visit, a, b uint32) { v(Ticket, a); v(Waiting, a); v(Piece, b) },
			want: "what is to be sent may be nowhere else"},
		{name: "given to the pool too soon", spoil: func(f *Frames, a, _ uint32) { f.pool.Unref(a) },
			others: func(v Visit, a, b uint32) { v(Unnamed, a); v(Piece, b) }, want: "the pool has it as free; places: injection batch"},
		{name: "in the reserve, and elsewhere", spoil: func(f *Frames, a, b uint32) { f.Give(a); f.Give(b); f.reserve = append(f.reserve, a) },
			want: "it may be in one of them"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pool := newPool(t)
			defer pool.Close()
			f := New(pool)
			a, _ := f.Take()
			b, _ := f.Take()
			if c.spoil != nil {
				c.spoil(f, a, b)
			}
			err := f.Audit(func(v Visit) {
				if c.others != nil {
					c.others(v, a, b)
				}
			})
			if c.want == "" {
				qt.Check(t, qt.IsNil(err))
			} else {
				qt.Check(t, qt.ErrorMatches(err, `frame \d+: .*`+c.want+`.*`))
			}
		})
	}
}
