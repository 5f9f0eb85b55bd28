package redisd

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/internal/tcplisten"
	"github.com/pastenet/paste/pasteapi"
)

// acceptBurst bounds the connections accepted per batch: a flood of them must
// not starve those that are open.
const acceptBurst = 64

// accept takes new connections. It runs after reap, when neither ring names a
// descriptor that was closed.
func (l *loop) accept() {
	for range acceptBurst {
		if !l.acceptOne() {
			return
		}
	}
}

// acceptAll takes all that are waiting.
func (l *loop) acceptAll() {
	for range tcplisten.Backlog {
		if !l.acceptOne() {
			return
		}
	}
}

// acceptOne reports whether there may be more.
func (l *loop) acceptOne() bool {
	fd, peer, err := unix.Accept4(l.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	switch err {
	case nil:
		l.welcome(fd, peer)
	case unix.EAGAIN:
		return false
	case unix.EMFILE, unix.ENFILE:
		return l.refuseWithSpare()
	case unix.EINTR, unix.ECONNABORTED:
	case unix.EINVAL:
		if l.s.in(draining) {
			return false // another ring has shut it down
		}
		fallthrough
	default:
		// accept(2): pending network errors of the new socket show here.
		l.warn("accept", "err", os.NewSyscallError("accept4", err))
		return false
	}
	return true
}

func (l *loop) welcome(fd int, peer unix.Sockaddr) {
	l.s.cmd.Accepted++
	if l.open >= l.s.cfg.MaxConns {
		l.refuse(fd, "too many connections")
		return
	}
	switch err := l.ring.Register(fd); {
	case err == nil:
		l.newConn(fd, peer)
	case errors.Is(err, pasteapi.ErrNotConnected):
		unix.Close(fd) // it was reset before it was accepted
	case errors.Is(err, pasteapi.ErrTooManyConns), errors.Is(err, pasteapi.ErrNoBuffers):
		l.refuse(fd, err.Error())
	default:
		l.warn("register connection", "err", err)
		unix.Close(fd)
	}
}

// refuse says why and closes. What the client has sent, if it is there already, is
// read first: closing over unread input sends RST, which can overtake the answer.
func (l *loop) refuse(fd int, why string) {
	l.s.cmd.Rejected++
	l.warn("connection refused", "why", why, "open", l.open, "limit", l.s.cfg.MaxConns)
	if l.s.cfg.Encrypted {
		unix.Close(fd)
		return
	}
	unix.Write(fd, []byte("-ERR max number of clients reached\r\n"))
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
	fd, _, err := unix.Accept4(l.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err == nil {
		l.refuse(fd, "out of file descriptors: raise the limit (ulimit -n)")
	}
	l.openSpare()
	return err == nil
}
