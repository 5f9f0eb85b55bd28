package receive

import "github.com/pastenet/paste/pasteapi/internal/frames"

// Visit shows the frames that the receiver has.
func (r *Receiver) Visit(v frames.Visit) {
	for _, frame := range r.steered.unnamed {
		v(frames.Unnamed, frame)
	}
	for s := range r.steered.holders {
		for _, h := range s.held {
			v(frames.Held, h.frame)
		}
	}
	for i := range r.steered.tickets.info {
		if t := &r.steered.tickets.info[i]; t.busy {
			for _, p := range t.parts {
				v(frames.Ticket, p.frame)
			}
		}
	}
	for _, s := range r.copied.byCookie {
		for _, p := range s.pieces[s.first:] {
			if p.kind == inFrame {
				v(frames.Piece, p.frame)
			}
		}
	}
}
