package loadgen

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// feedEcho counts what comes back, and compares that which tells requests apart.
func (c *conn) feedEcho(b []byte) (done bool, err error) {
	at := len(c.body) - int(c.resp.left)
	if int64(len(b)) > c.resp.left {
		return false, fmt.Errorf("%d bytes behind the echo", int64(len(b))-c.resp.left)
	}
	if n := min(len(b), IDSize-at); n > 0 && !bytes.Equal(b[:n], c.body[at:at+n]) {
		return false, fmt.Errorf("echo of request %d differs from byte %d on", c.n, at)
	}
	c.resp.left -= int64(len(b))
	c.resp.status = 200
	return c.resp.left == 0, nil
}

// burst is how many writes go to one connection before it is another's turn.
const burst = 16

// sinkLoop writes as fast as the sockets take it.
func (g *generator) sinkLoop() error {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("load generator: create epoll: %w", err)
	}
	defer unix.Close(ep)
	g.res.Engine = Epoll
	g.connected = func(c *conn) error {
		ev := unix.EpollEvent{Events: unix.EPOLLOUT | unix.EPOLLRDHUP, Fd: int32(c.id)}
		return unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, c.fd, &ev)
	}
	if err := g.connectAll(); err != nil {
		return err
	}
	g.startClock()
	events := make([]unix.EpollEvent, min(len(g.conns), 1024))
	var from uint64 // acknowledged bytes when the window opened
	var fromErr error
	told := g.OnWindow
	g.OnWindow = func(open bool) {
		if open {
			from, fromErr = g.ackedBytes()
		}
		if told != nil {
			told(open)
		}
	}
	for {
		g.syscalls++
		n, err := unix.EpollWait(ep, events, int(tick/time.Millisecond))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("load generator: wait for epoll: %w", err)
		}
		if !g.tickNow() {
			to, err := g.ackedBytes()
			if g.begun && to > from {
				g.res.Requests = (to - from) / uint64(g.Size)
			}
			return errors.Join(fromErr, err)
		}
		for i := range max(n, 0) {
			c := &g.conns[events[i].Fd]
			if c.fd < 0 {
				continue
			}
			err := error(nil)
			if events[i].Events&^unix.EPOLLOUT != 0 {
				err = errors.New("the server closes the connection")
			} else {
				err = g.pour(c)
			}
			if err != nil {
				g.lost(c, err)
			}
		}
		if g.down > 0 {
			g.revive()
		}
	}
}

// pour writes to a connection until it takes no more, or it is another's turn.
func (g *generator) pour(c *conn) error {
	for range burst {
		b := c.unsent
		if len(b) == 0 {
			b = g.nextRequest(c)
		}
		g.syscalls++
		n, err := sendNonblock(c.fd, b)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			c.unsent = b
			return nil
		}
		if err != nil {
			return err
		}
		if c.unsent = b[n:]; len(c.unsent) == 0 {
			c.n++
			g.res.Acked++
			g.Live.Requests.Add(1)
		}
	}
	return nil
}

// ackedBytes is what the server's kernel has acknowledged on the connections that
// are up. One that was lost takes its bytes with it.
func (g *generator) ackedBytes() (sum uint64, err error) {
	for i := range g.conns {
		c := &g.conns[i]
		if c.fd < 0 {
			continue
		}
		info, err := unix.GetsockoptTCPInfo(c.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return sum, fmt.Errorf("load generator: ask for acknowledged bytes: %w", err)
		}
		sum += info.Bytes_acked
	}
	return sum, nil
}
