package loadgen

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"unsafe"

	"github.com/pastenet/paste/internal/uring"
	"golang.org/x/sys/unix"
)

const (
	shortBuf  = 4096
	longBuf   = 32 << 10 // for answers that are longer
	longBufs  = 256
	bufGroup  = 0
	opRecv    = 0
	opSend    = 1
	maxBufs   = 8192
	maxInRing = 4096
	pushAfter = 32
)

// uringEngine receives by multishot and sends what a batch of completions has made due
// in bursts, the last of them in the system call that waits for the next batch.
type uringEngine struct {
	g    *generator
	ring *uring.Ring
	bufs *uring.BufRing
	mem  []byte
	// bufLen is the length of a receive buffer.
	bufLen int
	// queued are sends that the kernel was not told of yet.
	queued int
}

func newUringEngine(g *generator) (_ *uringEngine, err error) {
	n := uint32(min(max(2*g.Connections, 64), maxInRing))
	ring, err := uring.New(n, uring.Options{DeferTaskrun: true, CQEntries: 4 * n})
	if err != nil {
		return nil, err
	}
	e := &uringEngine{g: g, ring: ring}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	// A power of two with room for a few buffers per connection.
	count := uint32(1) << bits.Len32(uint32(min(max(2*g.Connections, 256), maxBufs)-1))
	if e.bufLen = shortBuf; g.answerBytes() > shortBuf {
		count, e.bufLen = longBufs, longBuf
	}
	if e.mem, err = unix.Mmap(-1, 0, int(count)*e.bufLen, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE); err != nil {
		return nil, fmt.Errorf("map receive buffers: %w", err)
	}
	if e.bufs, err = ring.RegisterBufRing(bufGroup, count); err != nil {
		return nil, err
	}
	for i := range count {
		e.bufs.Add(unsafe.Pointer(&e.mem[int(i)*e.bufLen]), uint32(e.bufLen), uint16(i))
	}
	e.bufs.Advance()
	g.connected = e.start
	return e, nil
}

func (e *uringEngine) close() {
	// First the kernel must let go of buffers and requests.
	_ = e.ring.Close()
	if e.mem != nil {
		_ = unix.Munmap(e.mem)
		e.mem = nil
	}
}

func userData(c *conn, op uint64) uint64 {
	return uint64(c.gen)<<32 | op<<31 | uint64(c.id)
}

// start arms a new connection and sends its first request, if that is due.
func (e *uringEngine) start(c *conn) error {
	if err := e.arm(c); err != nil {
		return err
	}
	if p := e.g.pace; p != nil {
		p.rest(c)
		return nil
	}
	return e.send(c)
}

func (e *uringEngine) sqe() (*uring.SQE, error) {
	for range 3 {
		if s := e.ring.GetSQE(); s != nil {
			return s, nil
		}
		if _, err := e.ring.Submit(); err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EAGAIN) {
			return nil, err
		}
	}
	return nil, errors.New("io_uring submission queue stays full")
}

func (e *uringEngine) arm(c *conn) error {
	s, err := e.sqe()
	if err != nil {
		return err
	}
	s.RecvMultishot(c.fd, bufGroup, 0)
	s.SetUserData(userData(c, opRecv))
	return nil
}

func (e *uringEngine) send(c *conn) error {
	s, err := e.sqe()
	if err != nil {
		return err
	}
	req := e.g.nextRequest(c)
	// WAITALL: the kernel completes a partial send by itself. Then a success
	// needs no completion.
	s.Send(c.fd, unsafe.Pointer(&req[0]), uint32(len(req)), unix.MSG_NOSIGNAL|unix.MSG_WAITALL)
	s.SetFlags(uring.FlagCQESkip)
	s.SetUserData(userData(c, opSend))
	e.queued++
	return nil
}

// push hands over what is queued when that is enough, so that the server has work while
// the rest of a batch is looked at: else with some hundred connections client and
// server wait for each other.
func (e *uringEngine) push() error {
	if e.queued < pushAfter {
		return nil
	}
	e.queued = 0
	if _, err := e.ring.Submit(); err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("load generator: %w", err)
	}
	return nil
}

func (e *uringEngine) loop() error {
	g := e.g
	if err := g.connectAll(); err != nil {
		return err
	}
	g.startClock()
	base := g.syscalls
	for {
		// Send times are taken when the previous batch was read: what the batch
		// itself took to process counts as latency.
		if _, err := e.ring.SubmitAndWait(1, g.sleep()); err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EAGAIN) {
			return fmt.Errorf("load generator: %w", err)
		}
		g.syscalls = base + e.ring.Enters()
		if !g.tickNow() {
			return nil
		}
		acked := g.res.Acked
		for {
			c, ok := e.ring.PeekCQE()
			if !ok {
				break
			}
			e.complete(c)
			e.ring.Advance(1)
			if err := e.push(); err != nil {
				return err
			}
		}
		e.queued = 0 // the rest goes with the wait
		e.bufs.Advance()
		g.Live.Requests.Add(g.res.Acked - acked)
		if g.down > 0 {
			g.revive()
		}
		if g.pace != nil {
			g.pace.release(e.send)
		}
	}
}

func (e *uringEngine) complete(q *uring.CQE) {
	g := e.g
	c := &g.conns[q.UserData&(1<<31-1)]
	current := uint32(q.UserData>>32) == c.gen && c.fd >= 0
	if q.UserData>>31&1 == opSend {
		if current { // only failures, and short counts of them, are reported
			err := error(io.ErrShortWrite)
			if q.Res < 0 {
				err = unix.Errno(-q.Res)
			}
			g.lost(c, err)
		}
		return
	}
	if q.Flags&uring.CQEBuffer != 0 {
		bid := q.BufferID()
		if current && q.Res > 0 {
			next, err := g.input(c, e.mem[int(bid)*e.bufLen:][:q.Res])
			if err == nil && next {
				err = e.send(c)
			}
			if err != nil {
				g.lost(c, err)
				current = false
			}
		}
		e.bufs.Add(unsafe.Pointer(&e.mem[int(bid)*e.bufLen]), uint32(e.bufLen), bid)
	}
	if !current || q.More() {
		return
	}
	// The multishot ended: for good, or because buffers had run out.
	var err error
	switch {
	case q.Res > 0, unix.Errno(-q.Res) == unix.ENOBUFS:
		err = e.arm(c)
	case q.Res == 0:
		err = io.EOF
	default:
		err = unix.Errno(-q.Res)
	}
	if err != nil {
		g.lost(c, err)
	}
}
