package receive

import (
	"github.com/pastenet/paste/pasteapi/internal/conns"
	"github.com/pastenet/paste/pasteapi/internal/inject"
)

// Stream is the receiving side of one connection: what TCP has accepted of it
// and the application has not got yet, in order.
type Stream struct {
	conns.Conn

	next   uint32 // sequence number of the next byte for the application
	synced bool   // next is known

	pieces []piece // FIFO from first
	first  int
	listed bool // among those that are ready
	mute   bool // the application wants nothing more of it

	ended bool  // the close notice is among the pieces, or was given out
	cause error // why it ended; nil = FIN

	reading
	announced
	tickets ticketList // in flight, oldest first
	merge   mergeKey   // where its next segment may be added
	held    []heldFrame
	holding bool // nothing of it is injected, nor may it pass the NIC queue
	gone    bool // it was removed
}

// reading is what there is to know of a connection that is not steered: whether
// the verdict copies it, or it is read.
type reading struct {
	socket bool  // its bytes wait in the socket, to be read
	paused bool  // not now: nothing more of it is wanted for a while
	lost   bool  // for good: deliveries of it were lost
	large  bool  // for good: it has brought much at once
	small  uint8 // so many small reads in a row
	hint   int   // bytes that a read may bring
	beyond int   // bytes that the verdict has copied while it was paused; < 0: no more of that
}

// announced is what the application has said of what comes next.
type announced struct {
	expected int64  // so many bytes are one payload
	long     bool   // it takes slots that are longer than a frame
	handed   uint32 // bytes that it got, modulo 1<<32
}

// Handed is how many bytes were given out, modulo 1<<32.
func (a *announced) Handed() uint32 { return a.handed }

// mergeKey says where a connection's last segment is.
type mergeKey struct {
	inject.Key
	slot uint16 // its ticket
}

// piece is something that the application is to receive.
type piece struct {
	kind  pieceKind
	flags uint16 // inFrame: of the slot
	off   uint16 // inFrame: of the payload in the frame
	frame uint32 // inFrame
	skip  uint32 // inSocket: bytes to throw away first, received before; inFrame: see Payload.Ticket
	len   uint32 // inFrame, inSocket: bytes
}

type pieceKind uint8

const (
	inFrame   pieceKind = iota // payload in a frame
	inSocket                   // payload that waits in the socket
	allSocket                  // everything that waits in the socket
	closing                    // close notice
)

// Cause is why the connection ended: nil for an orderly FIN.
func (s *Stream) Cause() error { return s.cause }

func (s *Stream) pending() bool { return s.first < len(s.pieces) }

// wants says whether there is still an application for more pieces.
func (s *Stream) wants() bool { return !s.mute && !s.ended }

// push queues a piece. Adjoining bytes in the socket become one.
func (s *Stream) push(p piece) {
	if p.kind == allSocket && s.pending() && s.pieces[len(s.pieces)-1].kind == allSocket {
		return
	}
	if p.kind == inSocket && p.skip == 0 && s.pending() {
		if last := &s.pieces[len(s.pieces)-1]; last.kind == inSocket {
			last.len += p.len
			return
		}
	}
	s.pieces = append(s.pieces, p)
}

func (s *Stream) pop() {
	s.first++
	if s.first == len(s.pieces) {
		s.pieces, s.first = s.pieces[:0], 0
	}
}

// sync learns where the stream stands from its first delivery.
func (s *Stream) sync(consumed uint32) {
	if !s.synced {
		s.synced, s.next = true, consumed
	}
}

// catchUp queues what lies between the last byte that is accounted for and seq:
// it came another way, and waits in the socket. The result is how many bytes from
// seq on are accounted for already.
func (s *Stream) catchUp(seq uint32) (skip uint32) {
	gap := int32(seq - s.next)
	if gap <= 0 {
		return uint32(-gap)
	}
	if s.wants() {
		s.push(piece{kind: inSocket, len: uint32(gap)})
	}
	s.next = seq
	return 0
}

// end queues the close notice behind everything received before.
func (s *Stream) end(cause error) {
	if s.ended {
		return
	}
	s.cause = cause
	if !s.mute {
		s.push(piece{kind: closing})
	}
	s.ended = true
}

// ready lists the streams that have something for the application.
type ready struct{ streams []*Stream }

func (r *ready) add(s *Stream) {
	if !s.listed && s.pending() {
		s.listed = true
		r.streams = append(r.streams, s)
	}
}

// done takes the first n out.
func (r *ready) done(n int) {
	if n > 0 {
		rest := copy(r.streams, r.streams[n:])
		clear(r.streams[rest:])
		r.streams = r.streams[:rest]
	}
}
