// Package trace hands copies of what goes through the rings of a port to whoever asks for
// them. While nobody does, each place that could tell something loads a pointer and finds
// nil. While somebody does, copies go into a bounded queue, and what has no room there is
// counted: whoever reads slowly loses something, and slows nobody.
package trace

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pastenet/paste/pasteapi/internal/conns"
)

// Way says how bytes went.
type Way string

// The ways in, as the glossary has them; what TCP did not take of what was steered; and
// the way out.
const (
	Steered   Way = "steered"
	Copied    Way = "copied"
	Read      Way = "read"
	Reclaimed Way = "reclaimed"
	Closed    Way = "closed"
	Sent      Way = "sent"
)

// Event is some bytes of a connection that went some way, or a datagram.
type Event struct {
	Time   time.Time      `json:"time"`
	Ring   int            `json:"ring"`
	Peer   netip.AddrPort `json:"peer"`
	Local  netip.AddrPort `json:"local"`
	Way    Way            `json:"way"`
	UDP    bool           `json:"udp,omitempty"`
	Ticket uint32         `json:"ticket,omitempty"` // slot and generation, as the verdict program has it
	// Seq is how many bytes went the same direction since the trace began, modulo 1<<32,
	// and Ack how many the other one.
	Seq  uint32 `json:"seq"`
	Ack  uint32 `json:"ack"`
	Len  int    `json:"len"`            // bytes
	Data []byte `json:"data,omitempty"` // the first of them
	// Cause is why a connection ended; "" = FIN.
	Cause string `json:"cause,omitempty"`
	// Lost is how many events were lost before this one, since the trace began.
	Lost uint64 `json:"lost,omitempty"`
}

// Filter says which connections are traced. What is zero lets all through.
type Filter struct {
	Port uint16         `json:"port,omitempty"` // of either end
	Peer netip.Prefix   `json:"peer,omitzero"`
	Conn netip.AddrPort `json:"conn,omitzero"` // the peer's end of one connection
}

func (f *Filter) match(c *conns.Conn) bool {
	peer := netip.AddrPortFrom(c.Peer.Addr().Unmap(), c.Peer.Port())
	return (f.Port == 0 || f.Port == c.Local.Port() || f.Port == peer.Port()) &&
		(!f.Peer.IsValid() || f.Peer.Contains(peer.Addr().WithZone(""))) &&
		(!f.Conn.IsValid() || f.Conn == peer)
}

// Limits of what waits for the reader.
const (
	maxEvents = 4096
	maxBytes  = 16 << 20
)

// Session is a trace that somebody reads. Its methods may be called from any goroutine.
type Session struct {
	Events <-chan Event

	events chan Event
	filter Filter
	snap   int
	bytes  atomic.Int64 // of Data in the queue
	lost   atomic.Uint64

	mu    sync.Mutex // of the rings; it is never held while anybody waits
	flows map[int]*flow
}

// flow is what is known of a connection that has a descriptor.
type flow struct {
	cookie  uint64
	in, out uint32 // bytes
}

// NewSession makes a session, of which the first snap bytes of each event are kept.
func NewSession(f Filter, snap int) *Session {
	events := make(chan Event, maxEvents)
	return &Session{Events: events, events: events, filter: f, snap: snap, flows: map[int]*flow{}}
}

// Took says that the reader has taken an event out of Events.
func (s *Session) Took(e *Event) { s.bytes.Add(-int64(len(e.Data))) }

// Lost is how many events were lost.
func (s *Session) Lost() uint64 { return s.lost.Load() }

func (s *Session) put(c *conns.Conn, e Event, data []byte) {
	if !s.filter.match(c) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.flows[c.FD]
	if f == nil || f.cookie != c.Cookie {
		f = &flow{cookie: c.Cookie}
		s.flows[c.FD] = f
	}
	e.Time, e.Peer, e.Local, e.Len = time.Now(), c.Peer, c.Local, len(data)
	switch e.Way {
	case Sent:
		e.Seq, e.Ack = f.out, f.in
		f.out += uint32(len(data))
	case Reclaimed, Closed:
		e.Seq, e.Ack = f.in, f.out
	default:
		e.Seq, e.Ack = f.in, f.out
		f.in += uint32(len(data))
	}
	keep := data[:min(len(data), s.snap)]
	if len(s.events) == cap(s.events) || s.bytes.Load()+int64(len(keep)) > maxBytes {
		s.lost.Add(1)
		return
	}
	e.Data, e.Lost = append([]byte(nil), keep...), s.lost.Load()
	s.bytes.Add(int64(len(keep)))
	s.events <- e // there is room: nobody else puts something in
}

// Switch is a port's: it says whether somebody traces. The zero value says no.
type Switch struct{ session atomic.Pointer[Session] }

// Begin has what happens from now on put into a session. It reports whether it has:
// there may be another one already.
func (w *Switch) Begin(s *Session) bool { return w.session.CompareAndSwap(nil, s) }

// End ends Begin. A ring may put a last event into the session afterwards.
func (w *Switch) End() { w.session.Store(nil) }

// Tap is a ring's. Its methods are called on the ring's goroutine.
type Tap struct {
	Ring int
	Find func(fd int) *conns.Conn // nil where there is no such connection

	of *Switch
}

// NewTap returns the tap of a ring of a port.
func NewTap(w *Switch, ring int, find func(fd int) *conns.Conn) *Tap {
	return &Tap{Ring: ring, Find: find, of: w}
}

// Off is for a ring that nobody can trace.
var Off = NewTap(new(Switch), 0, nil)

// On says whether somebody traces. The other methods are for then.
func (t *Tap) On() bool { return t.of.session.Load() != nil }

// Received tells of bytes that came some way.
func (t *Tap) Received(c *conns.Conn, way Way, ticket uint32, data []byte) {
	if s := t.of.session.Load(); s != nil {
		s.put(c, Event{Ring: t.Ring, Way: way, Ticket: ticket}, data)
	}
}

// Ended tells of the end of a connection; a nil cause is a FIN.
func (t *Tap) Ended(c *conns.Conn, cause error) {
	s := t.of.session.Load()
	if s == nil {
		return
	}
	e := Event{Ring: t.Ring, Way: Closed}
	if cause != nil {
		e.Cause = cause.Error()
	}
	s.put(c, e, nil)
}

// Datagram tells of a datagram of a socket that came by, or went out. c may say other
// addresses than the socket has.
func (t *Tap) Datagram(c *conns.Conn, way Way, data []byte) {
	if s := t.of.session.Load(); s != nil {
		s.put(c, Event{Ring: t.Ring, Way: way, UDP: true}, data)
	}
}

// Sent tells of bytes that a socket has taken.
func (t *Tap) Sent(fd int, data []byte) {
	s := t.of.session.Load()
	if s == nil || len(data) == 0 {
		return
	}
	if c := t.Find(fd); c != nil {
		s.put(c, Event{Ring: t.Ring, Way: Sent}, data)
	}
}
