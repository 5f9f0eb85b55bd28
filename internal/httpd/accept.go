package httpd

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/pasteapi"
)

// acceptBurst bounds the connections accepted per batch: a flood of them must
// not starve those that are open.
const acceptBurst = 64

// accept takes new connections. It runs after reap, when neither ring names a
// descriptor that was closed.
func (l *loop) accept() {
	for range acceptBurst {
		fd, _, err := unix.Accept4(l.s.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			l.welcome(fd)
		case unix.EAGAIN:
			return
		case unix.EMFILE, unix.ENFILE:
			l.warn("connection refused: out of file descriptors; raise the limit (ulimit -n)", "open", l.open)
			if !l.refuseWithSpare() {
				return
			}
		case unix.EINTR, unix.ECONNABORTED:
		default:
			// accept(2): pending network errors of the new socket show here.
			l.warn("accept", "err", os.NewSyscallError("accept4", err))
			return
		}
	}
}

func (l *loop) welcome(fd int) {
	l.n.Accepted++
	if l.open >= l.s.cfg.MaxConns {
		l.refuse(fd)
		return
	}
	// A peer that has already said everything cannot be registered.
	if !established(fd) {
		l.servePlain(fd)
		return
	}
	switch err := l.ring.Register(fd); {
	case err == nil:
		l.newConn(fd)
	case errors.Is(err, pasteapi.ErrNotConnected):
		l.servePlain(fd)
	case errors.Is(err, pasteapi.ErrTooManyConns), errors.Is(err, pasteapi.ErrNoBuffers):
		l.refuse(fd)
	default:
		l.warn("register connection", "err", err)
		unix.Close(fd)
	}
}

// TCP_ESTABLISHED of include/net/tcp_states.h.
const tcpEstablished = 1

func established(fd int) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err != nil || info.State == tcpEstablished
}

// refuse answers 503 and closes. The request, if it is there already, is read
// first: closing over unread input sends RST, which can overtake the answer.
func (l *loop) refuse(fd int) {
	l.n.Rejected++
	l.warn("connection refused: too many", "open", l.open, "limit", l.s.cfg.MaxConns)
	unix.Write(fd, l.replies.busy)
	unix.Shutdown(fd, unix.SHUT_WR)
	var sink [4096]byte
	for range 4 {
		if n, err := unix.Read(fd, sink[:]); n <= 0 || err != nil {
			break
		}
	}
	unix.Close(fd)
}

func (l *loop) openSpare() {
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		fd = -1
	}
	l.spare = fd
}

// refuseWithSpare takes one connection off the queue with a descriptor that
// was kept for it. Left in the queue, it would make every Poll return at once.
func (l *loop) refuseWithSpare() bool {
	if l.spare < 0 {
		return false
	}
	unix.Close(l.spare)
	fd, _, err := unix.Accept4(l.s.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err == nil {
		l.refuse(fd)
	}
	l.openSpare()
	return err == nil
}

// servePlain serves a connection whose peer had sent everything, and FIN,
// before it was accepted: nothing more can arrive, so what waits in the socket
// is read to its end here, and the replies are written after the commit.
func (l *loop) servePlain(fd int) {
	c := l.newConn(fd)
	c.plain = true
	l.plains = append(l.plains, c)
	var frame [1]uint32
	for c.phase == serving {
		if l.s.pool.Alloc(frame[:]) == 0 {
			l.dropFrames()
			if l.s.pool.Alloc(frame[:]) == 0 {
				return // nothing is answered; flushPlain closes it
			}
		}
		n, err := unix.Read(fd, l.s.pool.Frame(frame[0]))
		if n <= 0 || err != nil {
			l.s.pool.Unref(frame[0])
			return
		}
		seg := segment{payload: l.s.pool.Frame(frame[0])[:n], frame: frame[0], kept: true, owned: true}
		if err := l.input(c, &seg); err != nil {
			l.warn("serve half-closed connection", "err", err)
			return
		}
	}
}

// flushPlain writes the replies of connections that are served plainly, and
// closes them. They leave now or never: the socket's buffer is empty before.
func (l *loop) flushPlain() {
	for i, c := range l.plains {
		if len(c.out) > 0 {
			unix.Write(c.fd, c.out)
		}
		l.destroy(c)
		l.plains[i] = nil
	}
	l.plains = l.plains[:0]
}
