package contender

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	readSize = 64 << 10
	// maxUnsent is how many bytes of replies may wait for a client that
	// doesn't read before its connection is cut.
	maxUnsent = 1 << 20
)

type epollConn struct {
	session
	srv     *epollServer
	fd      int
	body    []byte // parts of an unfinished body
	out     []byte // replies not yet sent
	pending bool   // in srv.dirty
	armed   uint32 // events that epoll watches
	eof     bool
}

// epollServer is one thread's event loop: read everything that is ready, commit
// once, then answer.
type epollServer struct {
	*Config
	store   store
	replies replies
	ep, ln  int
	wake    int
	conns   []*epollConn // by descriptor
	dirty   []*epollConn // with replies to send at the end of the batch
	buf     []byte
	calls   uint64
	reqs    uint64
}

func runEpoll(ctx context.Context, cfg *Config) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ln, addr, err := Listen(cfg.Addr)
	if err != nil {
		return err
	}
	defer unix.Close(ln)
	wake, release, err := waker(ctx)
	if err != nil {
		return err
	}
	defer release()
	ep, err := newEpoll(ln, wake)
	if err != nil {
		return err
	}
	defer unix.Close(ep)
	s := &epollServer{Config: cfg, store: store{pool: cfg.Pool, stats: cfg.Stats}, replies: newReplies(cfg),
		ep: ep, ln: ln, wake: wake, buf: make([]byte, cfg.Fitting(readSize))}
	defer func() {
		for _, c := range s.conns {
			if c != nil {
				_ = unix.Close(c.fd)
			}
		}
	}()
	cfg.Ready(addr)
	return s.loop()
}

// newEpoll makes an epoll that watches descriptors for input.
func newEpoll(fds ...int) (int, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("create epoll: %w", err)
	}
	for _, fd := range fds {
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			_ = unix.Close(ep)
			return -1, fmt.Errorf("add to epoll: %w", err)
		}
	}
	return ep, nil
}

func (s *epollServer) loop() error {
	events := make([]unix.EpollEvent, 512)
	for {
		n, err := s.wait(events)
		if err != nil {
			return fmt.Errorf("wait for epoll: %w", err)
		}
		for i := range events[:n] {
			switch fd := int(events[i].Fd); fd {
			case s.wake:
				return nil
			case s.ln:
				s.accept()
			default:
				s.serve(s.conns[fd], events[i].Events)
			}
		}
		if err := s.store.commit(); err != nil {
			return err
		}
		for i, c := range s.dirty {
			s.dirty[i] = nil
			c.pending = false
			s.flush(c)
		}
		s.dirty = s.dirty[:0]
		s.Stats.Syscalls.Store(s.calls)
		s.Stats.Requests.Store(s.reqs)
	}
}

// wait first asks without sleeping, which under load always succeeds and needs no
// hand-over to the Go scheduler.
func (s *epollServer) wait(events []unix.EpollEvent) (int, error) {
	for {
		s.calls++
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(s.ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return 0, errno
		}
		if errno == 0 && n > 0 {
			return int(n), nil
		}
		if s.BusyPoll {
			continue
		}
		s.calls++
		m, err := unix.EpollWait(s.ep, events, -1)
		if m > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return m, err
		}
	}
}

func (s *epollServer) accept() {
	for {
		s.calls++
		fd, _, err := unix.Accept4(s.ln, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			// EAGAIN: all done. Others, a lack of descriptors for one, leave
			// the connection waiting in the backlog.
			return
		}
		s.calls++
		if err := unix.EpollCtl(s.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			_ = unix.Close(fd)
			continue
		}
		for len(s.conns) <= fd {
			s.conns = append(s.conns, nil)
		}
		s.conns[fd] = &epollConn{srv: s, fd: fd, armed: unix.EPOLLIN}
	}
}

func (s *epollServer) serve(c *epollConn, events uint32) {
	if c == nil {
		return
	}
	if events&unix.EPOLLOUT != 0 {
		s.mark(c)
	}
	if events&^unix.EPOLLOUT == 0 {
		return
	}
	for !c.close && !c.eof {
		s.calls++
		n, err := recv(c.fd, s.buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			s.drop(c)
			return
		case n == 0:
			c.eof = true
			s.mark(c)
			return
		}
		s.reqs += c.feed(s.buf[:n], &s.replies, c)
		if n < len(s.buf) || len(c.out) > 0 {
			return // level-triggered: what may be left is reported again
		}
	}
}

// piece implements sink: a body that is in one piece goes from the receive buffer
// straight into the log.
func (c *epollConn) piece(p []byte, last bool) error {
	return c.srv.store.appendPiece(&c.body, p, last)
}

// reply implements sink.
func (c *epollConn) reply(b []byte) {
	c.out = append(c.out, b...)
	c.srv.mark(c)
}

func (s *epollServer) mark(c *epollConn) {
	if !c.pending {
		c.pending = true
		s.dirty = append(s.dirty, c)
	}
}

// flush sends what it can. While something is left, nothing more is read.
func (s *epollServer) flush(c *epollConn) {
	if s.conns[c.fd] != c {
		return
	}
	b := c.out
	for len(b) > 0 {
		s.calls++
		n, err := send(c.fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			s.drop(c)
			return
		}
		b = b[n:]
	}
	c.out = c.out[:copy(c.out, b)]
	if len(c.out) == 0 && (c.close || c.eof) || len(c.out) > maxUnsent+s.ResponseBytes {
		s.drop(c)
		return
	}
	want := uint32(unix.EPOLLIN)
	if len(c.out) > 0 {
		want = unix.EPOLLOUT
	}
	if want != c.armed {
		s.calls++
		if err := unix.EpollCtl(s.ep, unix.EPOLL_CTL_MOD, c.fd, &unix.EpollEvent{Events: want, Fd: int32(c.fd)}); err != nil {
			s.drop(c)
			return
		}
		c.armed = want
	}
}

func (s *epollServer) drop(c *epollConn) {
	if s.conns[c.fd] == c {
		s.conns[c.fd] = nil
		s.calls++
		_ = unix.Close(c.fd)
	}
}

func recv(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func send(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
