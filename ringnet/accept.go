package ringnet

import (
	"errors"
	"net"
	"os"
	"time"

	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// acceptBurst bounds the connections accepted at once: a flood of them must not starve
// those that are open.
const acceptBurst = 64

// acceptRetry is when a listener is looked at again that cannot accept: Accept is not
// called, or descriptors or connections have run out.
const acceptRetry = 20 * time.Millisecond

// accept takes connections from a listening socket, which the ring watches.
func (p *pump) accept(a *accepting) {
	for range acceptBurst {
		if len(a.l.conns) == cap(a.l.conns) {
			p.pause(a, nil)
			return
		}
		fd, sa, err := unix.Accept4(a.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			if !p.welcome(a, fd, sa) {
				return
			}
		case unix.EAGAIN:
			return
		case unix.EINTR, unix.ECONNABORTED:
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			p.pause(a, os.NewSyscallError("accept4", err))
			return
		default:
			// accept(2): pending network errors of the new socket show here.
			p.net.warn("accept", os.NewSyscallError("accept4", err))
			return
		}
	}
}

// welcome makes a connection of a socket. It reports whether there is room for more.
func (p *pump) welcome(a *accepting, fd int, sa unix.Sockaddr) bool {
	c := newConn(p, fd, localAddr(fd, a.l.addr), tcpAddr(sa))
	if err := p.add(c); err != nil {
		_ = c.sock.close()
		if errors.Is(err, pasteapi.ErrTooManyConns) || errors.Is(err, pasteapi.ErrNoBuffers) {
			p.pause(a, err)
			return false
		}
		if !errors.Is(err, pasteapi.ErrNotConnected) { // it was reset before it was accepted
			p.net.warn("register a connection", err)
		}
		return true
	}
	select {
	case a.l.conns <- c:
	default: // another pump was quicker
		_ = c.Close()
	}
	return true
}

// pause has a listener left alone for a while, so that its socket, which stays readable,
// does not keep the pump awake.
func (p *pump) pause(a *accepting, why error) {
	if why != nil {
		p.net.warn("connections have to wait", why)
	}
	if a.paused {
		return
	}
	a.paused = true
	if err := p.ring.Unwatch(a.fd); err != nil {
		p.net.warn("unwatch a listener", err)
	}
	time.AfterFunc(acceptRetry, func() { p.post(task{fn: func() { p.unpause(a) }}) })
}

func (p *pump) unpause(a *accepting) {
	if !a.paused || p.listening[a.fd] != a {
		return
	}
	a.paused = false
	if err := p.ring.Watch(a.fd); err != nil {
		p.net.warn("watch a listener", err)
	}
}

// unlisten closes a listening socket.
func (p *pump) unlisten(a *accepting) {
	if p.listening[a.fd] != a {
		return
	}
	delete(p.listening, a.fd)
	if !a.paused {
		if err := p.ring.Unwatch(a.fd); err != nil {
			p.net.warn("unwatch a listener", err)
		}
	}
	if err := a.sock.close(); err != nil {
		p.net.warn("close a listener", err)
	}
}

func newConn(p *pump, fd int, local, remote *net.TCPAddr) *Conn {
	c := &Conn{p: p, fd: fd, sock: socket{fd: fd}, local: local, remote: remote}
	c.in.deadline = deadline{mu: &c.in.mu, fire: c.in.signal}
	c.out.deadline = deadline{mu: &c.out.mu, fire: c.out.signal}
	return c
}

// localAddr is the local address of an accepted socket: the listener's, unless that is
// all addresses.
func localAddr(fd int, listener *net.TCPAddr) *net.TCPAddr {
	if !listener.IP.IsUnspecified() && listener.IP != nil {
		return listener
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return listener
	}
	return tcpAddr(sa)
}

func tcpAddr(sa unix.Sockaddr) *net.TCPAddr {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return &net.TCPAddr{IP: append([]byte(nil), sa.Addr[:]...), Port: sa.Port}
	case *unix.SockaddrInet6:
		a := &net.TCPAddr{IP: append([]byte(nil), sa.Addr[:]...), Port: sa.Port}
		if sa.ZoneId != 0 {
			if ifi, err := net.InterfaceByIndex(int(sa.ZoneId)); err == nil {
				a.Zone = ifi.Name
			}
		}
		return a
	}
	return &net.TCPAddr{} // it has no address, as when it was reset
}
