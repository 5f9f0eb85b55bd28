package ringnet

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a TCP connection whose bytes come through a ring. It is a net.Conn, and has
// the methods of a *net.TCPConn.
type Conn struct {
	p             *pump
	fd            int // the descriptor's number, for the ring
	sock          socket
	local, remote *net.TCPAddr
	in            struct {
		turn sync.Mutex // of who reads
		inbox
	}
	out    outbox
	closed sync.Once
}

var (
	_ net.Conn     = (*Conn)(nil)
	_ syscall.Conn = (*Conn)(nil)
)

// LocalAddr is a *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is a *net.TCPAddr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Close closes the connection. Reads and writes that wait end with net.ErrClosed. What
// was written is still sent.
func (c *Conn) Close() error {
	err := error(net.ErrClosed)
	c.closed.Do(func() {
		err = nil
		c.end()
		if !c.p.post(task{destroy, c, nil}) {
			err = c.sock.close() // the pump has ended, and the ring does not know it any more
		}
	})
	return c.opError("close", err)
}

// end ends what readers and writers do, for good.
func (c *Conn) end() {
	in, out := &c.in.inbox, &c.out
	c.sock.end()
	in.mu.Lock()
	in.closed = true
	in.deadline.stop()
	in.drop(c.p.pool)
	in.signal()
	in.mu.Unlock()
	out.mu.Lock()
	out.closed = true
	out.deadline.stop()
	out.signal()
	out.mu.Unlock()
}

// SetDeadline is that of net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetNoDelay is that of net.TCPConn. It is on, as a registered connection's is.
func (c *Conn) SetNoDelay(on bool) error {
	return c.opError("set", c.sock.set(unix.IPPROTO_TCP, unix.TCP_NODELAY, number(on)))
}

// SetKeepAlive is that of net.TCPConn.
func (c *Conn) SetKeepAlive(on bool) error {
	return c.opError("set", c.sock.set(unix.SOL_SOCKET, unix.SO_KEEPALIVE, number(on)))
}

// SetKeepAlivePeriod is that of net.TCPConn: how long the connection is idle before a
// probe is sent, and between two, in whole seconds.
func (c *Conn) SetKeepAlivePeriod(d time.Duration) error {
	seconds := int((d + time.Second - 1) / time.Second)
	return c.opError("set", errors.Join(c.sock.set(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds),
		c.sock.set(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds)))
}

// SetReadBuffer is that of net.TCPConn: the size of the kernel's receive buffer, bytes.
func (c *Conn) SetReadBuffer(bytes int) error {
	return c.opError("set", c.sock.set(unix.SOL_SOCKET, unix.SO_RCVBUF, bytes))
}

// SetWriteBuffer is that of net.TCPConn: the size of the kernel's send buffer, bytes.
func (c *Conn) SetWriteBuffer(bytes int) error {
	return c.opError("set", c.sock.set(unix.SOL_SOCKET, unix.SO_SNDBUF, bytes))
}

// SetLinger is that of net.TCPConn. With 0, Close resets the connection.
func (c *Conn) SetLinger(seconds int) error {
	l := unix.Linger{Onoff: int32(number(seconds >= 0)), Linger: int32(max(seconds, 0))}
	return c.opError("set", c.sock.do(func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &l))
	}))
}

func number(on bool) int {
	if on {
		return 1
	}
	return 0
}

// SyscallConn gives access to the socket, for options and the like. Its Read fails with
// errors.ErrUnsupported: what has arrived is not in the socket.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	if err := c.sock.do(func(int) error { return nil }); err != nil {
		return nil, c.opError("raw", err)
	}
	return rawConn{c}, nil
}

type rawConn struct{ c *Conn }

func (r rawConn) Control(f func(fd uintptr)) error {
	return r.c.opError("raw-control", r.c.sock.do(func(fd int) error { f(uintptr(fd)); return nil }))
}

func (r rawConn) Read(func(fd uintptr) bool) error {
	return r.c.opError("raw-read", errors.ErrUnsupported)
}

func (r rawConn) Write(f func(fd uintptr) (done bool)) error {
	r.c.out.turn.Lock()
	defer r.c.out.turn.Unlock()
	return r.c.opError("raw-write", r.c.send(func() (int, error) {
		done := false
		err := r.c.sock.do(func(fd int) error { done = f(uintptr(fd)); return nil })
		if err == nil && !done {
			err = unix.EAGAIN
		}
		return 0, err
	}))
}
