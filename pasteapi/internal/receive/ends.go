package receive

import "golang.org/x/sys/unix"

// End ends a connection for a cause that is not the peer's.
func (r *Receiver) End(s *Stream, cause error) {
	if s.ended && s.cause == nil {
		s.cause = cause
	}
	s.end(cause)
	r.ready.add(s)
}

// Input says that there is something to read in a socket of which the input was
// wanted.
func (r *Receiver) Input(s *Stream) {
	if s.socket && s.wants() {
		s.push(piece{kind: allSocket})
		r.ready.add(s)
	}
}

// HungUp says that an event tells of the end of a connection.
func (r *Receiver) HungUp(s *Stream) {
	if !s.ended {
		r.hungup = append(r.hungup, s)
	}
}

// CheckEnds finds out how connections ended of which HungUp told. While bytes
// are ahead of the end it waits for them.
func (r *Receiver) CheckEnds() {
	if len(r.hungup) == 0 {
		return
	}
	later := r.hungup[:0]
	for _, s := range r.hungup {
		if s.gone || s.ended {
			continue
		}
		known := r.peek(s)
		if !s.ended && (!known || s.pending()) {
			later = append(later, s)
		}
	}
	clear(r.hungup[len(later):])
	r.hungup = later
}

// peek looks whether a connection has ended. The look itself makes the verdict
// run over segments that were queued before registration. The result is false
// when it has ended but bytes may be ahead that cannot be read yet: look again.
func (r *Receiver) peek(s *Stream) (known bool) {
	n, errno := r.read.look(s)
	// What the verdict has seen up to the end of stream is in the ring by now.
	all := r.copied.readDeliveries()
	if errno == unix.EAGAIN || n > 0 {
		return all
	}
	if all {
		s.end(s.cause)
		r.ready.add(s)
	}
	return all
}
