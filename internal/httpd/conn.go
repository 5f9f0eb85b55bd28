package httpd

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/internal/http1"
	"github.com/pastenet/paste/internal/ringserve"
)

// conn is one connection. It belongs to its loop.
type conn struct {
	fd     int
	phase  phase
	eof    bool // the peer has sent its last byte
	listed bool // in loop.closing
	parser http1.Parser

	// The request in progress.
	status    status
	got       int64 // bytes of its body so far
	body      pieces
	reading   *reading      // the records that it asks for; nil for nearly all
	key       *onceKey      // by which the body is stored only once; nil for nearly all
	whole     []byte        // a body that came in one piece, to be copied by the log; valid within input
	late      pieces        // what came behind it, while out is being sent
	heldSince time.Duration // since when body or late are not empty

	// For a Handler.
	state    any
	headroom int

	out  output
	wait waiting
}

// phase is where a connection is in its life.
type phase uint8

const (
	serving   phase = iota
	flushing        // the last reply is written; input is ignored
	lingering       // our side is shut down; waiting for the peer's end
	dead            // to be closed as soon as no TX slot names it
)

const (
	// lingerTime is how long the peer's end is waited for after the last
	// reply. Closing with input on its way would make the kernel send RST,
	// which can destroy the reply before the peer has read it.
	lingerTime = time.Second
	// tick is how often deadlines and send queues are looked at, as long as a
	// connection is closing.
	tick = 10 * time.Millisecond
)

// find returns the connection of a descriptor, or nil.
func (l *loop) find(fd int) *conn {
	if uint(fd) >= uint(len(l.conns)) {
		return nil
	}
	return l.conns[fd]
}

// newConn takes a used conn from the free list when there is one, because its
// buffers are worth keeping.
func (l *loop) newConn(fd int) *conn {
	var c *conn
	if n := len(l.free); n > 0 {
		c = l.free[n-1]
		l.free = l.free[:n-1]
	} else {
		c = new(conn)
	}
	c.fd = fd
	for len(l.conns) <= fd {
		l.conns = append(l.conns, nil)
	}
	l.conns[fd] = c
	l.expects(c, partHeader)
	c.out.Begin(l.timer.now)
	l.Open++
	return c
}

// hangUp closes c as soon as its last reply has left.
func (l *loop) hangUp(c *conn) {
	if c.phase >= flushing {
		return
	}
	c.phase = flushing
	l.dropInput(c)
	l.close(c)
}

// kill closes c without regard to replies.
func (l *loop) kill(c *conn) {
	if c.phase == dead {
		return
	}
	c.phase = dead
	l.dropInput(c)
	l.close(c)
}

func (l *loop) close(c *conn) {
	if !c.listed {
		c.listed = true
		l.closing = append(l.closing, c)
	}
}

// peerClosed handles a close notice: an orderly end (the peer may still read)
// or an error.
func (l *loop) peerClosed(c *conn) {
	c.eof = true
	if l.ring.CloseCause(c.fd) != nil {
		l.kill(c)
		return
	}
	// What was answered is still sent, and what was asked is still answered; a
	// request that was cut off is not.
	if !c.sending() {
		l.hangUp(c)
	}
}

// dropInput gives up everything that c has sent.
func (l *loop) dropInput(c *conn) {
	l.dropBody(c)
	l.dropPieces(&c.late)
}

// reap moves closing connections on. It runs when no RX slot is left
// unprocessed, so that no slot can be taken for one of a new connection that
// gets the same descriptor.
func (l *loop) reap() {
	kept := l.closing[:0]
	for _, c := range l.closing {
		if l.Waits(&c.out.Out) || !l.mayGo(c) {
			kept = append(kept, c)
			continue
		}
		l.destroy(c)
	}
	clear(l.closing[len(kept):])
	l.closing = kept
}

// mayGo takes the next step in closing c, of which no TX slot is waiting, and
// reports whether it was the last.
func (l *loop) mayGo(c *conn) bool {
	switch {
	case c.phase == dead:
		return true
	case c.phase == lingering && l.timer.now > c.wait.deadline:
		return true
	case c.phase == flushing && (c.sending() || l.ring.TxQueued(c.fd) > 0):
		if l.stalled(c) {
			l.n.TimedOut++
			l.abort(c)
			return true
		}
		return false
	case c.eof:
		return true
	case c.phase == flushing:
		if ringserve.CloseWrite(l.ring, c.fd) != nil {
			return true
		}
		c.phase = lingering
		c.wait.deadline = l.timer.now + lingerTime
	}
	return false
}

// destroy closes the socket and recycles c.
func (l *loop) destroy(c *conn) {
	l.dropInput(c)
	l.dropOutput(c)
	if err := l.ring.Unregister(c.fd); err != nil {
		l.Log.Warn("unregister connection", "err", err)
	}
	l.conns[c.fd] = nil
	unix.Close(c.fd)
	l.Open--
	c.parser.Reset()
	*c = conn{parser: c.parser, body: pieces{frags: c.body.frags[:0], sums: c.body.sums[:0]}, state: c.state}
	if len(l.free) < 1024 {
		l.free = append(l.free, c)
	}
}
