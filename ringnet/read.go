package ringnet

import (
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// Read reads what has arrived, as much as fits, and waits if there is nothing.
func (c *Conn) Read(b []byte) (int, error) {
	in := &c.in
	in.turn.Lock()
	defer in.turn.Unlock()
	n, err := c.read(b)
	return n, c.opError("read", err)
}

// read reads. The caller has the turn.
func (c *Conn) read(b []byte) (int, error) {
	in := &c.in.inbox
	in.mu.Lock()
	for {
		if err := in.refuses(); err != nil {
			in.mu.Unlock()
			return 0, err
		}
		if len(b) == 0 {
			in.mu.Unlock()
			return 0, nil
		}
		if !in.empty() {
			n := in.read(c.p.pool, b)
			c.taken()
			return n, nil
		}
		if err := in.end(); err != nil {
			in.mu.Unlock()
			return 0, err
		}
		in.buf, in.filled = b, 0
		c.wait()
		// Nobody else touches it after the wake-up, until the next one waits.
		if n := in.filled; n > 0 {
			return n, nil
		}
		in.mu.Lock()
	}
}

// refuses says why there is nothing to be read, whatever has arrived.
func (in *inbox) refuses() error {
	switch {
	case in.closed:
		return net.ErrClosed
	case in.deadline.passed():
		return os.ErrDeadlineExceeded
	case in.shut:
		return io.EOF
	}
	return nil
}

// end is the end of the stream, or nil if more may come.
func (in *inbox) end() error {
	if in.eof {
		return ended(in.cause)
	}
	return nil
}

// wait waits until the pump, a deadline or Close wakes it up. It gives the lock up.
func (c *Conn) wait() {
	in := &c.in.inbox
	if in.wake == nil {
		in.wake = make(chan struct{}, 1)
	}
	in.waiting = true
	in.mu.Unlock()
	<-in.wake
}

// taken sees to a connection of which something was read, and gives the lock up.
func (c *Conn) taken() {
	in := &c.in.inbox
	goOn := in.held && in.bytes <= goOnAt
	if goOn {
		in.held = false
	}
	in.mu.Unlock()
	if goOn {
		c.p.post(task{release, c, nil})
	}
}

// readBufs are for WriteTo.
var readBufs = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// WriteTo writes everything that arrives to w, until the end of the stream.
func (c *Conn) WriteTo(w io.Writer) (sum int64, err error) {
	c.in.turn.Lock()
	defer c.in.turn.Unlock()
	buf := readBufs.Get().(*[64 << 10]byte)
	defer readBufs.Put(buf)
	for {
		n, err := c.read(buf[:])
		if err == io.EOF {
			return sum, nil
		}
		if err != nil {
			return sum, c.opError("read", err)
		}
		n, err = w.Write(buf[:n])
		if sum += int64(n); err != nil {
			return sum, err
		}
	}
}

// Segment is payload in a packet buffer that its holder has a reference of.
type Segment struct {
	pool *pmem.Pool
	frag pmem.Fragment
}

// Payload are the bytes, where they lie. They stay until Release, or as long as
// something that the fragment was put into keeps them.
func (s Segment) Payload() []byte { return payload(s.pool, s.frag) }

// Fragment says where in the pool the payload lies. A log that it is appended to
// takes a reference of its own.
func (s Segment) Fragment() pmem.Fragment { return s.frag }

// Release gives the reference up. It is called once.
func (s Segment) Release() { s.pool.Unref(s.frag.Frame) }

// ReadSegment reads what has arrived as the packet buffer in which it lies, a piece of
// the stream without regard to what the peer has written at once, and waits if there
// is nothing. The caller releases the segment, before the Net is closed. What cannot stay
// where it came, small pieces that had to wait, is copied into a buffer of the
// pool; pasteapi.ErrNoBuffers says that there was none, and nothing is lost then.
func (c *Conn) ReadSegment() (Segment, error) {
	c.in.turn.Lock()
	defer c.in.turn.Unlock()
	s, err := c.readSegment()
	return s, c.opError("read", err)
}

func (c *Conn) readSegment() (Segment, error) {
	in := &c.in.inbox
	in.mu.Lock()
	for {
		err := in.refuses()
		if err == nil && in.empty() {
			err = in.end()
		}
		if err != nil {
			in.mu.Unlock()
			return Segment{}, err
		}
		if !in.empty() {
			break
		}
		in.filled = 0
		c.wait()
		in.mu.Lock()
	}
	pool := c.p.pool
	if in.pieces[in.first].heap == nil {
		s := Segment{pool, in.take().frag}
		c.taken()
		return s, nil
	}
	var frame [1]uint32
	if pool.Alloc(frame[:]) == 0 {
		in.mu.Unlock()
		return Segment{}, pasteapi.ErrNoBuffers
	}
	n := in.read(pool, pool.Frame(frame[0]))
	c.taken()
	return Segment{pool, pmem.Fragment{Frame: frame[0], Len: uint16(n)}}, nil
}

// CloseRead ends the reading side: Read returns io.EOF from now on, and what has
// arrived and was not read is dropped.
func (c *Conn) CloseRead() error {
	in := &c.in.inbox
	in.mu.Lock()
	in.shut = true
	in.drop(c.p.pool)
	in.signal()
	c.taken()
	return c.opError("close", c.sock.shutdown(shutRead))
}

// SetReadDeadline is that of net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	in := &c.in.inbox
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return c.opError("set", net.ErrClosed)
	}
	in.deadline.set(t)
	return nil
}
