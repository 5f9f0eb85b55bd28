package httpd

import (
	"bytes"
	"time"

	"github.com/pastenet/paste/internal/http1"
	"github.com/pastenet/paste/pmem"
)

// Handler gives requests a meaning of its own, in place of the log. A ring has
// one; its methods are called by the ring's goroutine. An error of Finish,
// Commit or MakeRoom ends the server.
type Handler interface {
	// Begin is called when a header is complete, and reports whether the body
	// is to be collected. What it wants to know of the request's target later
	// it copies to the State.
	Begin(x *Exchange) (collect bool)
	// Finish answers a complete request. full says that there was no room for
	// its body.
	Finish(x *Exchange, full bool) error
	// More goes on with an answer that Finish, or More, has begun and said that
	// there is more of (Exchange.More).
	More(x *Exchange) error
	// Commit makes durable what answers speak of. It is called before these leave.
	Commit() error
	// Tick is called after each batch, for what is to be done by time, and says
	// when it wants to be called at the latest; below 0 is never.
	Tick() (next time.Duration, err error)
	// MakeRoom frees buffers of the pool, and reports whether it could.
	MakeRoom() (bool, error)
}

// NewWithHandler is New for a server whose rings each get a Handler. Of cfg,
// ResponseBytes, Persist, OnFull, Retain and Keys do not count.
func NewWithHandler(cfg Config, pool *pmem.Pool, handler func() Handler) (*Server, error) {
	cfg.Persist, cfg.OnFull = PersistZeroCopy, Refuse
	s, err := newServer(cfg, pool)
	if err == nil {
		s.handler = handler
	}
	return s, err
}

// OnClose has f called when the server is closed. It is called before Run.
func (s *Server) OnClose(f func()) { s.closed = f }

// Exchange is a request with its connection, for the time of one call.
type Exchange struct {
	l *loop
	c *conn
}

// Request is the request in progress; its Target is valid only in Begin.
func (x *Exchange) Request() *http1.Request { return &x.c.parser.Request }

// State returns what SetState kept for the connection, or for an earlier one
// that used the same memory; nil at first.
func (x *Exchange) State() any { return x.c.state }

// SetState keeps something with the connection.
func (x *Exchange) SetState(s any) { x.c.state = s }

// SetHeadroom asks for n free bytes in front of a body that is copied together
// from pieces. To be called in Begin.
func (x *Exchange) SetHeadroom(n int) { x.c.headroom = n }

// Body returns the fragments of the body that was collected. The server gives
// up its references to their frames after Finish.
func (x *Exchange) Body() []pmem.Fragment { return x.c.body.frags }

// BodyLen is the length of the body in bytes.
func (x *Exchange) BodyLen() int64 { return x.c.got }

// Front is how many bytes directly in front of the body's first fragment, in
// its frame, nobody needs any more.
func (x *Exchange) Front() int { return x.c.body.front }

// Form returns the header field that an answer needs to tell the client what
// becomes of the connection; nothing for most.
func (x *Exchange) Form() string { return formField[form(&x.c.parser.Request)] }

// Reply sends b, which is the caller's again afterwards.
func (x *Exchange) Reply(b []byte) error {
	err := x.l.reply(x.c, b)
	if out := &x.c.out; len(out.bytes) > 0 {
		out.bytes = bytes.Clone(out.bytes)
	}
	return err
}

// More says that the answer is not complete: Handler.More is called when the
// client has taken enough of what there is. Until then nothing else that it
// asked for is looked at.
func (x *Exchange) More() {
	x.c.out.more = true
	x.l.sends(x.c)
}

// Close has the connection closed behind the answer.
func (x *Exchange) Close() {
	x.c.parser.Request.KeepAlive = false
}

// Abort ends the connection by a reset: the answer that has begun cannot be
// completed.
func (x *Exchange) Abort() { x.l.abort(x.c) }

// ReplyFrame sends a fragment from where it lies, without copying, unless it
// begins so far back in its frame that a slot cannot say so. The caller's
// reference to the frame is taken over; nothing in the fragment may change as
// long as the frame has references.
func (x *Exchange) ReplyFrame(f pmem.Fragment) error {
	l := x.l
	if x.c.sending() || l.roomToSend(x.c) <= 0 {
		x.c.out.frags = append(x.c.out.frags, f)
		l.sends(x.c)
		return nil
	}
	return l.WriteFrame(x.c.fd, &x.c.out.Out, f)
}
