package redisd

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/internal/redisd/command"
	"github.com/pastenet/paste/internal/ringserve"
)

// conn is one connection. It belongs to its loop.
type conn struct {
	l      *loop
	fd     int
	phase  phase
	eof    bool // the peer has sent its last byte
	listed bool // in loop.closing
	woken  bool // in loop.inbox
	held   bool // the ring takes nothing more of it
	long   bool // it has brought more than a frame at once
	client *command.Client
	in     *input // nil: nothing waits
	out    output
	wait   waiting
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
	// keepAlive is after how many seconds of silence the kernel asks whether the
	// peer is there, as with Redis.
	keepAlive = 300
)

// find returns the connection of a descriptor, or nil.
func (l *loop) find(fd int) *conn {
	if uint(fd) >= uint(len(l.conns)) {
		return nil
	}
	return l.conns[fd]
}

func (l *loop) newConn(fd int, peer unix.Sockaddr) {
	c := &conn{l: l, fd: fd}
	local, _ := unix.Getsockname(fd) // none if it is gone already
	c.client = l.s.cmd.NewClient(c, addrOf(peer), addrOf(local))
	for len(l.conns) <= fd {
		l.conns = append(l.conns, nil)
	}
	l.conns[fd] = c
	c.wait.since = l.timer.now
	c.out.Begin(l.timer.now)
	l.Open++
	// It can only fail for a descriptor that is no socket.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepAlive)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepAlive/3)
}

func addrOf(sa unix.Sockaddr) string {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port)).String()
	}
	return "?:0"
}

// Wake implements command.Conn.
func (c *conn) Wake() {
	if c.woken {
		return
	}
	c.woken = true
	c.l.inbox = append(c.l.inbox, c)
	if c.l.s.active != c.l {
		c.l.ring.Wake()
	}
}

// Queued implements command.Conn.
func (c *conn) Queued() (in, out int) {
	if c.in != nil {
		in = len(c.in.buf)
	}
	return in, c.out.left.Len()
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

// abort closes c by a reset: nobody reads at the other end, and an orderly end
// would wait for it in the kernel.
func (l *loop) abort(c *conn) {
	ringserve.Reset(c.fd)
	l.kill(c)
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
	// request that was cut off is not, and nobody waits for more.
	if _, blocked := c.client.Blocked(); blocked || !c.sending() {
		l.hangUp(c)
	}
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
			l.s.stats.TimedOut++
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

// destroy closes the socket.
func (l *loop) destroy(c *conn) {
	c.phase = dead
	l.dropInput(c)
	l.dropOutput(c)
	c.client.Gone()
	if err := l.ring.Unregister(c.fd); err != nil {
		l.Log.Warn("unregister connection", "err", err)
	}
	l.conns[c.fd] = nil
	unix.Close(c.fd)
	l.Open--
}

// drain takes the connections that are waiting to be accepted, and no others.
func (l *loop) drain() {
	l.draining = true
	l.s.db.Lock()
	defer l.s.db.Unlock()
	l.Acceptor.Drain()
}

// dismiss closes the connections on which no command has begun. It is called at
// the end of a batch that has seen what had arrived when draining began.
func (l *loop) dismiss() {
	l.dismissed = true
	for _, c := range l.conns {
		if c == nil || c.phase != serving {
			continue
		}
		_, blocked := c.client.Blocked()
		if blocked || c.in == nil && !c.sending() {
			l.hangUp(c)
		}
	}
}
