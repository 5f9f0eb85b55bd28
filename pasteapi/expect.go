package pasteapi

import "fmt"

// Expect announces that the next n bytes of a connection are one payload: a posted
// receive. Those are counted from what was not taken out of the RX ring yet, the slots
// from Head on. An application that knows how much comes next (from a length in a
// header) should say so, as the ring then takes the cheapest way for just that: what
// has to be read from the socket is read into a run of neighbouring frames, of up to
// 64 KiB, and is one slot, instead of one for each frame.
//
// From the first Expect on the connection may bring segments that are longer than a
// frame (NS_RUN), announced or not, as large ones tend to follow each other. Segment.
// Payload is the whole of it, and KeepAll keeps it.
//
// Nothing is held back until the payload is complete: it comes in as many segments
// as it takes, of which all but the last are marked (Segment.More) if Expect was called
// before they came in. The last one may bring what follows the payload, too. So there
// is no limit to n; math.MaxInt64 says that the connection brings nothing but payload.
// Nothing changes in the order of bytes, in what is counted, or at the end: where the
// connection ends before the n bytes have come, the close notice follows those that
// have, and its cause says why. What was announced before is forgotten, so 0 takes it
// back.
//
// Errors: ErrNotRegistered, ErrClosed, and ErrExpect for an n below 0 or a UDP socket.
func (r *Ring) Expect(fd int, n int64) error {
	if r.closed {
		return ErrClosed
	}
	if n < 0 {
		return fmt.Errorf("expect %d bytes of fd %d: %w", n, fd, ErrExpect)
	}
	c := r.conns.Find(fd)
	if c == nil {
		return fmt.Errorf("expect %d bytes of fd %d: %w", n, fd, ErrNotRegistered)
	}
	if c.dgram != nil {
		return fmt.Errorf("expect %d bytes of fd %d: %w: its datagrams are whole", n, fd, ErrExpect)
	}
	r.in.Expect(&c.in, max(n-r.pair.rx.untaken(fd, c.in.Handed()), 0))
	return nil
}
