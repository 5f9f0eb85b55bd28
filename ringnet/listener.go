package ringnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// acceptQueue is how many connections wait for Accept at most; further ones wait in
// the kernel.
const acceptQueue = 1024

// Listener is a net.Listener whose connections come over rings.
type Listener struct {
	net    *Net
	addr   *net.TCPAddr
	socks  []*accepting
	conns  chan *Conn
	closed chan struct{}
	once   sync.Once

	mu       sync.Mutex
	deadline time.Time
	changed  chan struct{} // closed when the deadline changes
}

// accepting is a listening socket, and the pump that accepts from it.
type accepting struct {
	l      *Listener
	p      *pump
	sock   socket
	fd     int
	paused bool // of the pump: the ring does not watch it
}

// Listen is net.Listen over the rings of a port that it opens, and that is closed with
// the listener, or with the last of its connections if that is later. For several
// listeners on one port use Open.
func Listen(ctx context.Context, network, address string, o pasteapi.Options) (*Listener, error) {
	n, err := Open(ctx, o)
	if err != nil {
		return nil, err
	}
	l, err := n.Listen(ctx, network, address)
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.mu.Lock()
	n.alone = true
	n.mu.Unlock()
	return l, nil
}

// Listen listens as package net does, on network "tcp", "tcp4" or "tcp6", and steers the
// port. It must be called in the network namespace to listen in.
func (n *Net) Listen(ctx context.Context, network, address string) (*Listener, error) {
	l := &Listener{net: n, conns: make(chan *Conn, acceptQueue), closed: make(chan struct{}), changed: make(chan struct{})}
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil, &net.OpError{Op: "listen", Net: network, Err: net.ErrClosed}
	}
	n.listeners[l] = struct{}{}
	n.inUse++
	n.mu.Unlock()
	err := l.bind(ctx, network, address)
	if err == nil {
		err = n.port.Steer(uint16(l.addr.Port))
	}
	if err == nil {
		err = l.begin()
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// bind makes a socket for each pump.
func (l *Listener) bind(ctx context.Context, network, address string) error {
	for i, p := range l.net.pumps {
		if i > 0 {
			address = l.addr.String()
		}
		fd, addr, err := listen(ctx, network, address, i > 0)
		if err != nil {
			return err
		}
		l.addr = addr
		l.socks = append(l.socks, &accepting{l: l, p: p, fd: fd, sock: socket{fd: fd}})
		// The first was bound alone, so that two servers on one address are found out.
		if i == 0 && len(l.net.pumps) > 1 {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
				return os.NewSyscallError("setsockopt SO_REUSEPORT", err)
			}
		}
	}
	return nil
}

// begin gives the sockets to the pumps.
func (l *Listener) begin() error {
	pumps := l.net.pumps
	var fds []int
	for _, a := range l.socks {
		fds = append(fds, a.fd)
	}
	placed := len(fds) > 1 && !slices.ContainsFunc(pumps, func(p *pump) bool { return p.ring.Queues() == 0 })
	var errs []error
	for i, a := range l.socks {
		ok := a.p.call(func() {
			if i == 0 && placed {
				errs = append(errs, a.p.ring.PlaceConnections(fds...))
			}
			a.p.listening[a.fd] = a
			errs = append(errs, a.p.ring.Watch(a.fd))
		})
		if !ok {
			errs = append(errs, net.ErrClosed)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("listen on %s: %w", l.addr, err)
	}
	return nil
}

// listen makes a listening socket that is nobody's but the caller's. That of package net
// has its rules for addresses, and its errors.
func listen(ctx context.Context, network, address string, share bool) (int, *net.TCPAddr, error) {
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return -1, nil, &net.OpError{Op: "listen", Net: network, Err: net.UnknownNetworkError(network)}
	}
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false) // rings carry plain TCP
	if share {
		lc.Control = func(_, _ string, c syscall.RawConn) (err error) {
			ctlErr := c.Control(func(fd uintptr) {
				err = os.NewSyscallError("setsockopt SO_REUSEPORT", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
			})
			return errors.Join(ctlErr, err)
		}
	}
	ln, err := lc.Listen(ctx, network, address)
	if err != nil {
		return -1, nil, err
	}
	tcp := ln.(*net.TCPListener)
	fd, err := duplicate(tcp)
	if err == nil {
		// Connections inherit these.
		err = keepAlive(fd)
	}
	if closeErr := tcp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return -1, nil, err
	}
	return fd, tcp.Addr().(*net.TCPAddr), nil
}

// keepAlive has probes sent as package net does by default: every 15 seconds, 9 times.
func keepAlive(fd int) error {
	return os.NewSyscallError("setsockopt", errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9)))
}

// duplicate returns a descriptor of the same socket, which Go's poller does not know.
func duplicate(sc syscall.Conn) (fd int, err error) {
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, err
	}
	ctlErr := raw.Control(func(p uintptr) {
		fd, err = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 0)
	})
	if ctlErr != nil {
		return -1, ctlErr
	}
	return fd, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
}

// Accept waits for the next connection, a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptRing()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptRing is Accept, for who wants what only a Conn has.
func (l *Listener) AcceptRing() (*Conn, error) {
	for {
		l.mu.Lock()
		deadline, changed := l.deadline, l.changed
		l.mu.Unlock()
		var expired <-chan time.Time
		if !deadline.IsZero() {
			t := time.NewTimer(time.Until(deadline))
			defer t.Stop()
			expired = t.C
		}
		select {
		case <-l.closed:
			return nil, l.opError("accept", net.ErrClosed)
		default:
		}
		select {
		case c := <-l.conns:
			return c, nil
		case <-l.closed:
			return nil, l.opError("accept", net.ErrClosed)
		case <-expired:
			return nil, l.opError("accept", os.ErrDeadlineExceeded)
		case <-changed:
		}
	}
}

// SetDeadline is that of net.TCPListener.
func (l *Listener) SetDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deadline = t
	close(l.changed)
	l.changed = make(chan struct{})
	return nil
}

// Net is what the listener is of.
func (l *Listener) Net() *Net { return l.net }

// Addr is a *net.TCPAddr.
func (l *Listener) Addr() net.Addr { return l.addr }

func (l *Listener) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: l.addr, Err: err}
}

// Close ends listening: the address is free when it returns. Connections that were not
// accepted are closed, others stay.
func (l *Listener) Close() error {
	err := l.opError("close", net.ErrClosed)
	l.once.Do(func() {
		err = nil
		close(l.closed)
		for _, a := range l.socks {
			a.p.call(func() { a.p.unlisten(a) }) // or the pump has ended, and done it
			_ = a.sock.close()                   // if it was never the pump's
		}
		for empty := false; !empty; {
			select {
			case c := <-l.conns:
				_ = c.Close()
			default:
				empty = true
			}
		}
		l.net.mu.Lock()
		delete(l.net.listeners, l)
		l.net.mu.Unlock()
		l.net.left()
	})
	return err
}
