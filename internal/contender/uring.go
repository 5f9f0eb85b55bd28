package contender

import (
	"context"
	"errors"
	"net/netip"
	"runtime"

	"github.com/pastenet/paste/internal/uring"
	"github.com/pastenet/paste/pmem"
	"golang.org/x/sys/unix"
)

// Operations, in the upper bits of the user data. Below are 30 bits of
// generation and 32 bits of descriptor.
const (
	opRecv   = iota // multishot receive
	opQuick         // a whole reply from static memory; reported only when it failed
	opSend          // from the connection's buffer, always reported
	opSystem        // descriptor: listener or waker
)

// uringServer is one thread's event loop: take a batch of completions, commit
// once, hand over replies and wait in one system call.
type uringServer struct {
	*Config
	store   store
	pool    *pmem.Pool
	replies replies
	static  []byte // memory behind replies
	ring    *uring.Ring
	bufs    *uring.BufRing
	frame   []uint32 // of each provided buffer
	fresh   []uint32 // frames to put in the place of those kept
	spent   []uint32 // references to give up
	missing []uint16 // buffers for which there was no frame
	warm    []byte   // the buffers, if they are not frames
	bufLen  int      // of one of them

	conns   []*uringConn          // by descriptor
	orphans map[uint64]*uringConn // gone, with a send still in the kernel
	dirty   []*uringConn          // with something to send at the end of the batch
	gen     uint32
	ln      int
	wake    int
	deaf    bool // accepting failed, for lack of descriptors
	done    bool
	reqs    uint64
	extra   uint64 // system calls beside io_uring_enter

	cur  uint32 // frame being fed
	base uintptr
	kept bool
}

func runUring(ctx context.Context, cfg *Config) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s := &uringServer{Config: cfg, pool: cfg.Pool, store: store{pool: cfg.Pool, stats: cfg.Stats},
		replies: newReplies(cfg), orphans: map[uint64]*uringConn{}}
	if s.pool == nil {
		if s.pool, err = pmem.NewMemory("paste-bench", pmem.Options{Size: 64 << 20}); err != nil {
			return err
		}
		defer s.pool.Close()
	}
	var addr netip.AddrPort
	if s.ln, addr, err = Listen(cfg.Addr); err != nil {
		return err
	}
	defer unix.Close(s.ln)
	var release func()
	if s.wake, release, err = waker(ctx); err != nil {
		return err
	}
	defer release()
	if err := s.setup(); err != nil {
		s.free()
		return err
	}
	defer s.free()
	cfg.Ready(addr)
	return s.loop()
}

func (s *uringServer) setup() (err error) {
	if err := s.makeStatic(); err != nil {
		return err
	}
	if s.ring, err = uring.New(2048, uring.Options{DeferTaskrun: true, CQEntries: 8192}); err != nil {
		return err
	}
	if err := s.makeBuffers(); err != nil {
		return err
	}
	if err := s.accept(); err != nil {
		return err
	}
	e := s.ring.GetSQE()
	e.PollAdd(s.wake, unix.POLLIN)
	e.SetUserData(opSystem<<62 | uint64(s.wake))
	return nil
}

func (s *uringServer) sqe() (*uring.SQE, error) {
	for range 3 {
		if e := s.ring.GetSQE(); e != nil {
			return e, nil
		}
		if _, err := s.ring.Submit(); err != nil && !busy(err) {
			return nil, err
		}
	}
	return nil, errors.New("io_uring submission queue stays full")
}

func busy(err error) bool { return errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EAGAIN) }

func (s *uringServer) accept() error {
	e, err := s.sqe()
	if err != nil {
		return err
	}
	e.AcceptMultishot(s.ln, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	e.SetUserData(opSystem<<62 | uint64(s.ln))
	return nil
}

func (s *uringServer) loop() error {
	for !s.done {
		var err error
		if s.BusyPoll {
			_, err = s.ring.SubmitAndReap()
		} else {
			_, err = s.ring.SubmitAndWait(1, -1)
		}
		if err != nil && !busy(err) {
			return err
		}
		for {
			q, ok := s.ring.PeekCQE()
			if !ok {
				break
			}
			err := s.complete(q)
			s.ring.Advance(1)
			if err != nil {
				return err
			}
		}
		if err := s.store.commit(); err != nil {
			return err
		}
		if len(s.spent) > 0 {
			s.pool.UnrefAll(s.spent)
			s.spent = s.spent[:0]
		}
		for i := 0; i < len(s.dirty); i++ {
			c := s.dirty[i]
			c.pending = false
			if err := s.flush(c); err != nil {
				return err
			}
		}
		s.dirty = s.dirty[:0]
		s.refill()
		s.Stats.Syscalls.Store(s.ring.Enters() + s.extra)
		s.Stats.Requests.Store(s.reqs)
	}
	return nil
}

func (s *uringServer) complete(q *uring.CQE) error {
	op, gen, fd := q.UserData>>62, uint32(q.UserData>>32)&(1<<30-1), int(uint32(q.UserData))
	var c *uringConn
	if op != opSystem && fd < len(s.conns) && s.conns[fd] != nil && s.conns[fd].gen == gen {
		c = s.conns[fd]
	}
	switch {
	case op == opSystem && fd == s.wake:
		s.done = true
	case op == opSystem:
		return s.accepted(q)
	case op == opRecv:
		return s.received(c, q)
	case op == opSend && c == nil:
		if c = s.orphans[q.UserData]; c != nil {
			delete(s.orphans, q.UserData)
			c.pin.Unpin()
		}
	case c == nil:
	case op == opQuick:
		// Part of it, or nothing, went out: the rest goes the slow way.
		if q.Res < 0 && unix.Errno(-q.Res) != unix.EAGAIN {
			s.drop(c)
			break
		}
		rest := append([]byte(nil), c.last[max(q.Res, 0):]...)
		if c.unsent {
			c.unsent = false
			rest = append(rest, c.quick...)
		}
		c.out = append(rest, c.out...)
		s.mark(c)
	case op == opSend:
		c.pin.Unpin()
		whole := int(q.Res) == len(c.sending)
		c.sending = nil
		if !whole {
			s.drop(c)
			break
		}
		s.mark(c)
	}
	return nil
}

func (s *uringServer) accepted(q *uring.CQE) error {
	if q.Res >= 0 {
		fd := int(q.Res)
		for len(s.conns) <= fd {
			s.conns = append(s.conns, nil)
		}
		s.gen = (s.gen + 1) & (1<<30 - 1)
		c := &uringConn{srv: s, fd: fd, gen: s.gen}
		s.conns[fd] = c
		if err := s.arm(c); err != nil {
			return err
		}
	}
	if q.More() {
		return nil
	}
	if q.Res < 0 {
		s.deaf = true // until a connection ends
		return nil
	}
	return s.accept()
}

func (s *uringServer) arm(c *uringConn) error {
	e, err := s.sqe()
	if err != nil {
		return err
	}
	e.RecvMultishot(c.fd, s.bufs.Group(), 0)
	e.SetUserData(c.userData(opRecv))
	return nil
}

func (s *uringServer) received(c *uringConn, q *uring.CQE) error {
	if q.Flags&uring.CQEBuffer != 0 {
		bid := q.BufferID()
		b := s.take(bid)
		if c != nil && q.Res > 0 && !c.close {
			s.reqs += c.feed(b[:q.Res], &s.replies, c)
		}
		s.giveBack(bid)
	}
	if c == nil || q.More() || s.conns[c.fd] != c {
		return nil
	}
	switch {
	case q.Res > 0, unix.Errno(-q.Res) == unix.ENOBUFS:
		return s.arm(c)
	case q.Res == 0:
		c.eof = true
		s.mark(c)
	default:
		s.drop(c)
	}
	return nil
}
