package receive

// heldLimit bounds the frames that are held for one connection. Beyond it frames
// are dropped, and TCP sends them again.
const heldLimit = 512

// heldFrame is a received frame that was not injected yet.
type heldFrame struct {
	frame uint32
	off   uint16 // of the Ethernet header in the frame
	len   uint16
}

// keep holds a frame. As it is not injected it is not acknowledged, so the peer
// slows down.
func (w *steered) keep(s *Stream, h heldFrame) {
	if len(s.held) >= heldLimit {
		w.count.HeldDropped++
		w.frames.Give(h.frame)
		return
	}
	w.count.Held++
	w.held++
	w.holders[s] = struct{}{}
	s.held = append(s.held, h)
}

// hold holds what comes of a connection from now on. Nothing of it may pass the
// NIC queue then.
func (w *steered) hold(s *Stream) {
	if !s.holding && w.order != nil {
		s.holding = true
		w.order.Force(s.Flow)
	}
}

// letPass ends hold, but for the frames.
func (w *steered) letPass(s *Stream) {
	if s.holding {
		s.holding = false
		w.order.EndForce(s.Flow)
	}
}

// freeHeld drops what is held; TCP sends it again.
func (w *steered) freeHeld(s *Stream) {
	for _, h := range w.takeHeld(s) {
		w.frames.Give(h.frame)
	}
}

// takeHeld takes out what is held for a connection.
func (w *steered) takeHeld(s *Stream) []heldFrame {
	held := s.held
	s.held = nil
	w.held -= len(held)
	delete(w.holders, s)
	return held
}

// dropMost drops what is held for the connection for which most is, and says how
// much that was.
func (w *steered) dropMost() (n int) {
	var most *Stream
	for s := range w.holders {
		if most == nil || len(s.held) > len(most.held) {
			most = s
		}
	}
	if most == nil {
		return 0
	}
	n = len(most.held)
	w.count.HeldDropped += uint64(n)
	w.freeHeld(most)
	return n
}

// beyondMost is how many bytes the verdict may copy of a connection that is paused
// before it has to leave them in the socket.
const beyondMost = 64 << 10

// limit ends the copying for a connection of which too much comes while nothing is
// wanted: its bytes stay in the socket from then on, and its peer's window closes.
func (w *copied) limit(s *Stream, n int) {
	if !s.paused || s.beyond < 0 {
		return
	}
	if s.beyond += n; s.beyond <= beyondMost {
		return
	}
	w.count.Syscalls++
	if w.tk.StopSocket(s.Cookie) == nil { // else the next delivery tries again
		s.beyond = -1
	}
}
