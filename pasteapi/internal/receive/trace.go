package receive

import "github.com/pastenet/paste/pasteapi/internal/trace"

// wasRead is in the place of a ticket where bytes were read from the socket. No ticket
// has slot 0.
const wasRead = 1 << 16

// traced tells of what goes into a slot. Call it only while somebody traces.
func (r *Receiver) traced(s *Stream, p *Payload) {
	b := r.frames.Bytes(p.Frame)
	if p.Flags&flagRun != 0 {
		b = r.frames.RunBytes(p.Frame)
	}
	b = b[p.Off:][:p.Len]
	switch p.Ticket {
	case 0:
		r.steered.trace.Received(&s.Conn, trace.Copied, 0, b)
	case wasRead:
		r.steered.trace.Received(&s.Conn, trace.Read, 0, b)
	default:
		r.steered.trace.Received(&s.Conn, trace.Steered, p.Ticket, b)
	}
}

// tracedDrop tells of the payloads of a ticket that TCP did not take. Call it only while
// somebody traces.
func (w *steered) tracedDrop(slot uint16) {
	t := &w.tickets.info[slot]
	if t.stream == nil {
		return
	}
	for _, p := range t.parts {
		b := w.frames.Bytes(p.frame)[p.off:][:p.len]
		w.trace.Received(&t.stream.Conn, trace.Reclaimed, uint32(slot)|uint32(t.gen)<<16, b)
	}
}
