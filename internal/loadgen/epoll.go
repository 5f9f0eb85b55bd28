package loadgen

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

const readSize = 64 << 10

// epollLoop serves what epoll reports: one read and one write per response.
func (g *generator) epollLoop() error {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("load generator: create epoll: %w", err)
	}
	defer unix.Close(ep)
	g.connected = func(c *conn) error {
		ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(c.id)}
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, c.fd, &ev); err != nil {
			return fmt.Errorf("add to epoll: %w", err)
		}
		return g.begin(c, ep)
	}
	if err := g.connectAll(); err != nil {
		return err
	}
	g.startClock()
	events := make([]unix.EpollEvent, min(len(g.conns), 1024))
	buf := make([]byte, readSize)
	for {
		g.syscalls++
		n, err := unix.EpollWait(ep, events, int(g.sleep().Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("load generator: wait for epoll: %w", err)
		}
		if !g.tickNow() {
			return nil
		}
		acked := g.res.Acked
		for i := range max(n, 0) {
			c := &g.conns[events[i].Fd]
			if c.fd < 0 {
				continue
			}
			if len(c.unsent) > 0 && events[i].Events&unix.EPOLLOUT != 0 {
				err = g.write(c, c.unsent, ep)
			} else {
				err = nil
			}
			if err == nil && events[i].Events&^unix.EPOLLOUT != 0 {
				_, err = g.read(c, buf, ep)
			}
			if err != nil {
				g.lost(c, err)
			}
		}
		g.Live.Requests.Add(g.res.Acked - acked)
		if g.down > 0 {
			g.revive()
		}
		g.release(ep)
	}
}

// spinLoop asks every connection over and over.
func (g *generator) spinLoop() error {
	g.connected = func(c *conn) error { return g.begin(c, -1) }
	if err := g.connectAll(); err != nil {
		return err
	}
	g.startClock()
	buf := make([]byte, readSize)
	for g.tickNow() {
		acked := g.res.Acked
		for i := range g.conns {
			c := &g.conns[i]
			if c.fd < 0 {
				continue
			}
			var err error
			if len(c.unsent) > 0 {
				err = g.write(c, c.unsent, -1)
			}
			for got := true; got && err == nil; {
				got, err = g.read(c, buf, -1)
			}
			if err != nil {
				g.lost(c, err)
			}
		}
		g.Live.Requests.Add(g.res.Acked - acked)
		if g.down > 0 {
			g.revive()
		}
		g.release(-1)
	}
	return nil
}

// begin sends the first request on a connection, if that is due.
func (g *generator) begin(c *conn, ep int) error {
	if g.pace != nil {
		g.pace.rest(c)
		return nil
	}
	return g.write(c, g.nextRequest(c), ep)
}

// release sends what is due in an open loop.
func (g *generator) release(ep int) {
	if g.pace != nil {
		g.pace.release(func(c *conn) error { return g.write(c, g.nextRequest(c), ep) })
	}
}

// read takes what is there, once, and sends the next request if the response is
// complete. It reports whether it got something short of that.
func (g *generator) read(c *conn, buf []byte, ep int) (more bool, err error) {
	g.syscalls++
	n, err := recvNonblock(c.fd, buf)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return false, nil
	case err != nil:
		return false, err
	case n == 0:
		return false, io.EOF
	}
	if ep < 0 {
		g.now = monotonic() // spinning is about latency: read the clock each time
	}
	next, err := g.input(c, buf[:n])
	if err != nil || !next {
		return true, err
	}
	return false, g.write(c, g.nextRequest(c), ep)
}

// write sends b, remembers what the socket did not take and, with epoll, asks to
// be told when it takes more.
func (g *generator) write(c *conn, b []byte, ep int) error {
	had := len(c.unsent) > 0
	for len(b) > 0 {
		g.syscalls++
		n, err := sendNonblock(c.fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	c.unsent = b
	if has := len(b) > 0; has != had && ep >= 0 {
		ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(c.id)}
		if has {
			ev.Events |= unix.EPOLLOUT
		}
		g.syscalls++
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_MOD, c.fd, &ev); err != nil {
			return fmt.Errorf("change epoll: %w", err)
		}
	}
	return nil
}
