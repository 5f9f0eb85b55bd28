package pasteapi

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/pastenet/paste/pasteapi/internal/conns"
	"golang.org/x/sys/unix"
)

// Register puts a connected TCP socket under the ring: from now on its bytes
// come as RX slots, those that wait in the socket included, and read(2) must
// not be used on it. The socket stays the caller's, who calls Unregister
// before closing it. It is made non-blocking and TCP_NODELAY (as upstream does),
// and SO_OOBINLINE: urgent data is received as any other, in its place.
//
// Errors: ErrNotSocket and ErrNotConnected, which is an ordinary event too, as
// the peer may have reset it; ErrRegistered, also when another ring has the
// socket; ErrTooManyConns; ErrClosed.
//
// A descriptor that was closed without Unregister counts as unregistered when
// its number comes again for another socket. Until then its connection counts
// among Options.MaxConns.
func (r *Ring) Register(fd int) error {
	if r.closed {
		return ErrClosed
	}
	if err := r.register(fd, nil); err != nil {
		return fmt.Errorf("register fd %d: %w", fd, err)
	}
	return nil
}

// RegisterConn registers the socket under a connection of package net, or any
// other, and returns its descriptor, by which slots name it. The ring keeps the
// connection from being collected until Unregister; Conn gives it back. Errors
// are those of Register.
func (r *Ring) RegisterConn(sc syscall.Conn) (fd int, err error) {
	if r.closed {
		return -1, ErrClosed
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("register connection: %w", err)
	}
	fd = -1
	ctlErr := raw.Control(func(p uintptr) {
		fd = int(p)
		err = r.register(fd, sc)
	})
	if err := errors.Join(ctlErr, err); err != nil {
		return -1, fmt.Errorf("register connection: %w", err)
	}
	return fd, nil
}

// Conn returns the connection that RegisterConn was called with, or nil for a
// descriptor that is not registered or was registered by itself.
func (r *Ring) Conn(fd int) syscall.Conn {
	if c := r.conns.Find(fd); c != nil {
		return c.owner
	}
	return nil
}

func (r *Ring) register(fd int, owner syscall.Conn) error {
	if c := r.conns.Find(fd); c != nil {
		if !c.in.Gone() {
			return ErrRegistered
		}
		if err := r.unregister(c); err != nil {
			return err
		}
	}
	if r.conns.Len() >= r.maxConns {
		return fmt.Errorf("%w: the limit is %d (Options.MaxConns)", ErrTooManyConns, r.maxConns)
	}
	if conns.IsDatagram(fd) {
		return r.registerDatagram(fd, owner)
	}
	id, err := conns.Open(fd)
	if err != nil {
		return err
	}
	if err := conns.Claim(id.Cookie); err != nil {
		return err
	}
	c := &conn{owner: owner}
	c.in.Conn = id
	c.out.Init(fd)
	if err := r.in.Add(&c.in); err != nil {
		conns.Release(id.Cookie)
		return err
	}
	r.own.Syscalls++
	if err := r.wait.WatchConn(fd); err != nil {
		conns.Release(id.Cookie)
		return errors.Join(err, r.in.Remove(&c.in))
	}
	r.conns.Put(fd, c)
	if err := r.in.Start(&c.in); err != nil {
		return errors.Join(err, r.unregister(c))
	}
	r.expose() // bytes may have waited in the socket
	return nil
}

// Unregister takes a connection from the ring. Of a UDP socket whose datagrams the
// kernel has merged, what waits in it is dropped. Slots that are already in the
// RX ring stay valid; bytes that were not given out yet, and replies that the
// kernel has not taken yet (see TxQueued), are dropped. Call it before
// close(2). Bytes that arrive while it is called may be lost, as the kernel drops
// what it is about to hand to the verdict at that moment: a socket that is to be
// used on must be unregistered while its peer sends nothing.
func (r *Ring) Unregister(fd int) error {
	if r.closed {
		return ErrClosed
	}
	c := r.conns.Find(fd)
	if c == nil {
		return fmt.Errorf("unregister fd %d: %w", fd, ErrNotRegistered)
	}
	if err := r.unregister(c); err != nil {
		return fmt.Errorf("unregister fd %d: %w", fd, err)
	}
	return nil
}

func (r *Ring) unregister(c *conn) error {
	fd := c.in.FD
	c.gone = true
	r.conns.Delete(fd)
	conns.Release(c.in.Cookie)
	var err error
	if c.dgram != nil {
		r.udp.remove(c.dgram)
	} else {
		err = r.in.Remove(&c.in)
		r.out.Drop(&c.out)
	}
	r.own.Syscalls++
	e := r.wait.Unwatch(fd)
	if e != nil && !errors.Is(e, unix.ENOENT) && !errors.Is(e, unix.EBADF) && !errors.Is(e, unix.EPERM) {
		// Those say that the descriptor was closed, or is another one by now.
		err = errors.Join(err, e)
	}
	r.publish() // a ring that is busy to its end may not look any more
	return err
}

// CloseAfterSend unregisters a connection and closes its descriptor as soon as
// the kernel has taken everything in the TX slots written so far, which is at
// the next TxSync unless the peer reads too slowly. From now on nothing more is
// received from it. The descriptor is the ring's; one that was registered by
// RegisterConn is closed by the Close method of its connection, if it has one.
func (r *Ring) CloseAfterSend(fd int) error {
	if r.closed {
		return ErrClosed
	}
	c := r.conns.Find(fd)
	if c == nil {
		return fmt.Errorf("close fd %d: %w", fd, ErrNotRegistered)
	}
	if !c.closing {
		c.closing = true
		r.closing = append(r.closing, c)
		r.mute(c)
	}
	return nil
}

func (r *Ring) mute(c *conn) {
	if c.dgram != nil {
		r.udp.in.Mute(c.dgram)
	} else {
		r.in.Mute(&c.in)
	}
}

// closeSent closes the connections that have nothing left to send.
func (r *Ring) closeSent() error {
	var err error
	later := r.closing[:0]
	for _, c := range r.closing {
		switch {
		case c.gone:
		case c.out.Bytes() > 0 || c.dgram != nil && c.dgram.Queued() > 0:
			later = append(later, c)
		default:
			err = errors.Join(err, r.unregister(c), r.closeConn(c))
		}
	}
	clear(r.closing[len(later):])
	r.closing = later
	return err
}

func (r *Ring) closeConn(c *conn) error {
	r.own.Syscalls++
	if closer, ok := c.owner.(interface{ Close() error }); ok {
		return closer.Close()
	}
	return os.NewSyscallError("close", unix.Close(c.in.FD))
}

// CloseCause tells, after a close notice, why a connection ended: nil for an
// orderly FIN, else an errno such as ECONNRESET, or ErrTxOverflow. EPROTO means
// that the delivery ring overflowed, a retransmission then repeated bytes, and
// the kernel had no memory to cut them off, so that none are given out.
func (r *Ring) CloseCause(fd int) error {
	if c := r.conns.Find(fd); c != nil {
		if c.dgram != nil {
			return c.dgram.Cause()
		}
		return c.in.Cause()
	}
	return ErrNotRegistered
}

// TxQueued is the number of bytes that were put into TX slots for a connection
// and that the kernel has not taken at the last TxSync, because the peer reads
// too slowly.
func (r *Ring) TxQueued(fd int) int {
	if c := r.conns.Find(fd); c != nil {
		if c.dgram != nil {
			return c.dgram.QueuedBytes()
		}
		return c.out.Bytes()
	}
	return 0
}
