package receive

import "golang.org/x/sys/unix"

// Slots is where payload goes: the RX ring.
type Slots interface {
	// Free is how many more slots can be filled.
	Free() int
	// Fill puts a payload into the next slot. It returns the frame that was there.
	Fill(fd int, p Payload) (old uint32)
	// End puts a close notice into the next slot.
	End(fd int)
}

// Payload is what goes into a slot.
type Payload struct {
	Frame    uint32 // the slot's from then on; that, or the first of a run
	Off, Len int    // bytes in it
	Flags    uint16
	Ticket   uint32 // that brought it; 0: it was copied; wasRead
	Count    uint32 // bytes that the connection has brought with it, modulo 1<<32
}

// readLeast is the least number of bytes that are asked for when nothing is known.
const readLeast = 8 << 10

// Emit fills slots, connection by connection.
func (r *Receiver) Emit(to Slots) {
	was := r.clock.enter(Emit)
	defer func() { r.clock.enter(was) }()
	r.switcher.since += len(r.ready.streams)
	done := 0
	for _, s := range r.ready.streams {
		if !r.emit(s, to) {
			r.steered.full = true
			break
		}
		s.listed = false
		done++
	}
	r.ready.done(done)
	r.steered.updateBehind()
}

// emit gives out what a connection has; false means that there is no slot left.
func (r *Receiver) emit(s *Stream, to Slots) bool {
	for s.pending() {
		if to.Free() == 0 {
			return false
		}
		switch p := &s.pieces[s.first]; p.kind {
		case inFrame:
			r.frames.Shelve(r.hand(s, to, Payload{Frame: p.frame, Off: int(p.off), Len: int(p.len), Flags: p.flags, Ticket: p.skip}))
			s.pop()
		case closing:
			to.End(s.FD)
			if r.steered.trace.On() {
				r.steered.trace.Ended(&s.Conn, s.cause)
			}
			s.pop()
		default:
			if s.paused || !r.emitSocket(s, p, to) {
				return true
			}
		}
	}
	return true
}

// emitSocket reads waiting bytes into slots, as many as one system call fills.
// It returns false when the socket has none at the moment, and the connection
// has to wait.
func (r *Receiver) emitSocket(s *Stream, p *piece, to Slots) bool {
	if p.skip > 0 {
		n, errno := r.read.skip(s, p.skip)
		p.skip -= uint32(max(n, 0))
		return r.afterRead(s, p, 0, n > 0, errno)
	}
	want := int(p.len)
	if p.kind == allSocket {
		want = max(s.hint, readLeast)
		if s.long && max(int64(s.hint), s.expected) > int64(r.frames.Size()) {
			// A run, and a frame: as a rule that is more than there is.
			want = max(want, r.frames.RunSize()+r.frames.Size())
		}
	}
	if want == 0 {
		s.pop()
		return true
	}
	l := r.read.fill(s, want, to.Free())
	if l.n > 0 && r.copied.repeats(s) {
		r.read.drop(&l)
		l.n, l.errno = -1, unix.EPROTO
	}
	r.handLot(s, &l, to)
	r.Read += uint64(l.used)
	r.ReadBytes += uint64(max(l.n, 0))
	if p.kind == allSocket && l.n > 0 {
		// Less than was asked for is all there was; an event tells of more.
		all := l.n < l.want
		if all {
			s.pop()
		}
		r.switcher.noted(s, l.n, all)
		return true
	}
	return r.afterRead(s, p, max(l.n, 0), l.n > 0, l.errno)
}

// handLot fills slots with what was read.
func (r *Receiver) handLot(s *Stream, l *lot, to Slots) {
	for i, left := 0, l.n; left > 0; i++ {
		n := min(r.read.size(l, i), left)
		left -= n
		if l.run && i == 0 {
			r.frames.Park(l.frames[i], r.hand(s, to, Payload{Frame: l.frames[i], Off: CopiedDoff, Len: n, Flags: flagCopied | flagRun, Ticket: wasRead}))
		} else {
			r.frames.Shelve(r.hand(s, to, Payload{Frame: l.frames[i], Off: CopiedDoff, Len: n, Flags: flagCopied, Ticket: wasRead}))
		}
	}
}

// hand fills one slot.
func (r *Receiver) hand(s *Stream, to Slots, p Payload) (old uint32) {
	if s.expected > 0 {
		if s.expected -= int64(p.Len); s.expected > 0 {
			p.Flags |= flagMore
		}
	}
	s.handed += uint32(p.Len)
	p.Count = s.handed
	if r.steered.trace.On() {
		r.traced(s, &p)
	}
	return to.Fill(s.FD, p)
}

// afterRead accounts for what a read from the socket returned: n bytes of the
// piece.
func (r *Receiver) afterRead(s *Stream, p *piece, n int, more bool, errno unix.Errno) bool {
	switch {
	case more:
		if p.kind == inSocket {
			p.len -= uint32(n)
			if p.len == 0 && p.skip == 0 {
				s.pop()
			}
		}
	case errno == unix.EAGAIN && p.kind == allSocket:
		s.pop()
	case errno == unix.EAGAIN || errno == unix.ENOBUFS:
		r.read.wait(s)
		return false
	default:
		// The connection was reset, and the kernel has thrown the rest away; or
		// it is given up, as its bytes cannot be told apart any more. What came
		// behind the gap is not given out.
		cause := s.cause
		if errno != 0 && cause == nil {
			cause = errno
		}
		r.read.free(s)
		s.ended = false
		s.end(cause)
	}
	return true
}
