package ringnet

import (
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// outbox is the sending side of a connection. What is sent goes to the socket at
// once, in the caller's goroutine; only when that is full the pump is asked to tell
// of room.
type outbox struct {
	turn sync.Mutex // of who writes

	mu       sync.Mutex
	waiting  bool
	wake     chan struct{}
	closed   bool
	deadline deadline
}

// signal wakes up whoever waits. The lock is held.
func (o *outbox) signal() {
	if o.waiting {
		o.waiting = false
		o.wake <- struct{}{}
	}
}

// sendMost is how many bytes one system call sends at most.
const sendMost = 1 << 20

// Write sends b, and waits while the socket is full.
func (c *Conn) Write(b []byte) (sum int, err error) {
	c.out.turn.Lock()
	defer c.out.turn.Unlock()
	err = c.send(func() (int, error) {
		n, errno := c.sock.send(b[sum:min(len(b), sum+sendMost)])
		sum += n
		return len(b) - sum, errno
	})
	return sum, c.opError("write", err)
}

// send calls try, which says how much is left to be sent, until that is nothing. On
// EAGAIN it waits until there is room. The caller has the turn.
func (c *Conn) send(try func() (left int, err error)) error {
	o := &c.out
	for asked := false; ; {
		if err := o.allowed(); err != nil {
			return err
		}
		left, err := try()
		switch {
		case err == unix.EAGAIN && asked:
			o.wait()
			asked = false
		case err == unix.EAGAIN:
			// It may have room by now, of which nobody would tell.
			if err := o.prepare(); err != nil {
				return err
			}
			if !c.p.post(task{room, c, nil}) {
				return net.ErrClosed
			}
			asked = true
		case err == unix.EINTR:
		case err != nil:
			if errno, ok := err.(unix.Errno); ok {
				err = os.NewSyscallError("write", errno)
			}
			return err
		case left == 0:
			return nil
		}
	}
}

// refuses says why nothing may be sent. The lock is held.
func (o *outbox) refuses() error {
	switch {
	case o.closed:
		return net.ErrClosed
	case o.deadline.passed():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// allowed is refuses for who has no lock.
func (o *outbox) allowed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.refuses()
}

// prepare is called before the pump is asked, and wait after it: a wake-up between
// the two is not lost.
func (o *outbox) prepare() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.refuses(); err != nil {
		return err
	}
	if o.wake == nil {
		o.wake = make(chan struct{}, 1)
	}
	select {
	case <-o.wake: // of a wait that was not needed
	default:
	}
	o.waiting = true
	return nil
}

func (o *outbox) wait() { <-o.wake }

// writerOnly hides ReadFrom.
type writerOnly struct{ io.Writer }

// ReadFrom sends everything that r has. A file is sent by the kernel, without coming
// into this process.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	if n, err, ok := c.sendFile(r); ok {
		return n, c.opError("readfrom", err)
	}
	return io.Copy(writerOnly{c}, r)
}

// sendFile sends a file, or the part of it that an io.LimitedReader stands for. ok is
// false if it cannot, and nothing was sent.
func (c *Conn) sendFile(r io.Reader) (sum int64, err error, ok bool) {
	left := int64(1<<63 - 1)
	limited, isLimited := r.(*io.LimitedReader)
	if isLimited {
		r, left = limited.R, limited.N
	}
	f, isFile := r.(*os.File)
	if !isFile || left <= 0 {
		return 0, nil, false
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return 0, nil, false
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, nil, false
	}
	c.out.turn.Lock()
	defer c.out.turn.Unlock()
	first := true
	ctlErr := raw.Control(func(fd uintptr) {
		err = c.send(func() (int, error) {
			n, err := c.sock.sendFile(int(fd), int(min(left, sendMost)))
			if first && (err == unix.EINVAL || err == unix.ENOSYS || err == unix.EOPNOTSUPP) {
				return 0, io.ErrNoProgress
			}
			first = false
			sum += int64(n)
			left -= int64(n)
			if err == nil && n == 0 {
				return 0, nil // the end of the file
			}
			return int(min(left, 1)), err
		})
	})
	if isLimited {
		limited.N = left
	}
	if err == io.ErrNoProgress {
		return 0, nil, false
	}
	if err == nil {
		err = ctlErr
	}
	return sum, err, true
}

// CloseWrite sends the end of the stream; the peer may still send.
func (c *Conn) CloseWrite() error {
	return c.opError("close", c.sock.shutdown(shutWrite))
}

// SetWriteDeadline is that of net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return c.opError("set", net.ErrClosed)
	}
	o.deadline.set(t)
	return nil
}
