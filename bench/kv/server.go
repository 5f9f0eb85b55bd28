package kv

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"github.com/pastenet/paste/internal/http1"
	"golang.org/x/sys/unix"
)

// server is one thread's event loop over an embedded store.
type server struct {
	store   engine
	ep, ln  int
	conns   []*conn // by descriptor
	dirty   []*conn // with answers to send at the end of the batch
	buf     []byte
	value   []byte
	calls   uint64
	request uint64
}

type conn struct {
	s       *server
	fd      int
	parser  http1.Parser
	method  http1.Method
	key     []byte
	status  int
	body    []byte // parts of an unfinished body
	out     []byte
	pending bool
	close   bool
	armed   uint32
}

// Serve runs a contender until ctx ends: args are its name, the address to
// listen on, and the directory for its data. It writes one line to out when it
// is ready, and one with what it counted when it is done.
func Serve(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 3 {
		return errors.New("kvserver: want a store, an address and a directory")
	}
	addr, err := netip.ParseAddrPort(args[1])
	if err != nil {
		return fmt.Errorf("kvserver: %w", err)
	}
	if args[0] == BboltHTTP || args[0] == PebbleHTTP {
		if err := serveHTTP(ctx, args[0], addr, args[2], out); err != nil {
			return fmt.Errorf("kvserver: %w", err)
		}
		return nil
	}
	store, err := openEngine(args[0], args[2])
	if err != nil {
		return fmt.Errorf("kvserver: open store: %w", err)
	}
	s := &server{store: store, buf: make([]byte, 64<<10)}
	err = s.run(ctx, addr, out)
	if err = errors.Join(err, store.Close()); err != nil {
		return fmt.Errorf("kvserver: %w", err)
	}
	return json.NewEncoder(out).Encode(map[string]uint64{"requests": s.request, "syscalls": s.calls})
}

func (s *server) run(ctx context.Context, addr netip.AddrPort, out io.Writer) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var err error
	if s.ln, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(s.ln)
	err = errors.Join(
		unix.SetsockoptInt(s.ln, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(s.ln, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.Bind(s.ln, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}),
		unix.Listen(s.ln, 4096))
	if err != nil {
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	defer unix.Close(wake)
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	defer func() {
		if !stop() {
			<-woken
		}
	}()
	if s.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	defer unix.Close(s.ep)
	defer func() {
		for _, c := range s.conns {
			if c != nil {
				unix.Close(c.fd)
			}
		}
	}()
	for _, fd := range []int{s.ln, wake} {
		if err := unix.EpollCtl(s.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return os.NewSyscallError("epoll_ctl", err)
		}
	}
	fmt.Fprintf(out, "listening on %s\n", addr)
	return s.loop(wake)
}

func (s *server) loop(wake int) error {
	events := make([]unix.EpollEvent, 512)
	for {
		n, err := s.wait(events)
		if err != nil {
			return os.NewSyscallError("epoll_wait", err)
		}
		for i := range events[:n] {
			switch fd := int(events[i].Fd); {
			case fd == wake:
				return nil
			case fd == s.ln:
				s.accept()
			case s.conns[fd] != nil:
				if err := s.serve(s.conns[fd], events[i].Events); err != nil {
					return err
				}
			}
		}
		// Durable first, then answered.
		if err := s.store.Commit(); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
		for i, c := range s.dirty {
			s.dirty[i] = nil
			c.pending = false
			s.flush(c)
		}
		s.dirty = s.dirty[:0]
	}
}

// wait first asks without sleeping, which under load always succeeds and needs
// no hand-over to the Go scheduler.
func (s *server) wait(events []unix.EpollEvent) (int, error) {
	for {
		s.calls++
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(s.ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return 0, errno
		}
		if errno == 0 && n > 0 {
			return int(n), nil
		}
		s.calls++
		m, err := unix.EpollWait(s.ep, events, -1)
		if m > 0 || err != nil && err != unix.EINTR {
			return m, err
		}
	}
}

func (s *server) accept() {
	for {
		s.calls++
		fd, _, err := unix.Accept4(s.ln, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		s.calls++
		if err := unix.EpollCtl(s.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			unix.Close(fd)
			continue
		}
		for len(s.conns) <= fd {
			s.conns = append(s.conns, nil)
		}
		s.conns[fd] = &conn{s: s, fd: fd, armed: unix.EPOLLIN}
	}
}

func (s *server) serve(c *conn, events uint32) error {
	s.mark(c)
	if events&^unix.EPOLLOUT == 0 {
		return nil
	}
	s.calls++
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(c.fd), uintptr(unsafe.Pointer(&s.buf[0])), uintptr(len(s.buf)), unix.MSG_DONTWAIT, 0, 0)
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return nil
	case errno != 0 || n == 0:
		c.close = true
		return nil
	}
	return c.feed(s.buf[:n])
}

// feed handles received bytes. An error is the store's.
func (c *conn) feed(b []byte) error {
	for len(b) > 0 && !c.close {
		n, body, ev, perr := c.parser.Feed(b)
		if perr != nil {
			c.answer(perr.Status, nil)
			c.close = true
			return nil
		}
		b = b[n:]
		if ev&http1.Headers != 0 {
			c.begin()
		}
		done := ev&http1.Done != 0
		if c.method == http1.MethodPut && (!done || len(c.body) > 0) {
			c.body = append(c.body, body...)
			body = c.body
		}
		if !done {
			continue
		}
		c.s.request++
		if err := c.finish(body); err != nil {
			return err
		}
		c.body = c.body[:0]
		c.close = !c.parser.Request.KeepAlive
	}
	return nil
}

func (c *conn) begin() {
	r := &c.parser.Request
	c.method, c.status = r.Method, 0
	key, ok := bytes.CutPrefix(r.Target, []byte("/k/"))
	if !ok || len(key) == 0 || len(key) > 255 {
		c.status = http.StatusNotFound
	}
	c.key = append(c.key[:0], key...)
}

func (c *conn) finish(body []byte) error {
	s := c.s
	switch {
	case c.status != 0:
		c.answer(c.status, nil)
	case c.method == http1.MethodGet:
		var found bool
		var err error
		if s.value, found, err = s.store.Get(s.value[:0], c.key); err != nil {
			return err
		}
		if !found {
			c.answer(http.StatusNotFound, nil)
			return nil
		}
		c.answer(http.StatusOK, s.value)
	case c.method == http1.MethodPut:
		if err := s.store.Put(c.key, body); err != nil {
			return err
		}
		c.answer(http.StatusNoContent, nil)
	case c.method == http1.MethodDelete:
		if err := s.store.Delete(c.key); err != nil {
			return err
		}
		c.answer(http.StatusNoContent, nil)
	default:
		c.answer(http.StatusMethodNotAllowed, nil)
	}
	return nil
}

func (c *conn) answer(status int, body []byte) {
	c.out = append(c.out, "HTTP/1.1 "...)
	c.out = strconv.AppendInt(c.out, int64(status), 10)
	c.out = append(append(c.out, ' '), http.StatusText(status)...)
	if status != http.StatusNoContent {
		c.out = append(c.out, "\r\nContent-Length: "...)
		c.out = strconv.AppendInt(c.out, int64(len(body)), 10)
	}
	c.out = append(append(c.out, "\r\n\r\n"...), body...)
}

func (s *server) mark(c *conn) {
	if !c.pending {
		c.pending = true
		s.dirty = append(s.dirty, c)
	}
}

// flush sends what it can. While something is left, nothing more is read.
func (s *server) flush(c *conn) {
	b := c.out
	for len(b) > 0 {
		s.calls++
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(c.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno == unix.EAGAIN {
			break
		}
		if errno != 0 {
			c.close, b = true, nil
			break
		}
		b = b[n:]
	}
	c.out = c.out[:copy(c.out, b)]
	if c.close && len(c.out) == 0 {
		s.conns[c.fd] = nil
		s.calls++
		unix.Close(c.fd)
		return
	}
	want := uint32(unix.EPOLLIN)
	if len(c.out) > 0 {
		want = unix.EPOLLOUT
	}
	if want != c.armed {
		s.calls++
		_ = unix.EpollCtl(s.ep, unix.EPOLL_CTL_MOD, c.fd, &unix.EpollEvent{Events: want, Fd: int32(c.fd)})
		c.armed = want
	}
}
