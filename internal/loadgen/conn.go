package loadgen

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// conn is one connection, over all its reincarnations.
type conn struct {
	id      int
	fd      int // -1 while down
	gen     uint32
	n       uint64 // number of the request that is outstanding
	sentAt  int64  // or when it was due, with a rate
	resting bool   // without a request, with a rate
	retryAt int64
	resp    response
	req     []byte // request bytes, outside of the Go heap
	body    []byte // the body within req
	unsent  []byte // epoll and spin: rest of a partial write

	op       uint8 // KV: what is outstanding
	get, put kvRequest
	batch    *batch // KV: what is sent at once; nil: one request
}

// build lays out the requests.
func (g *generator) build() error {
	g.conns = make([]conn, g.Connections)
	if g.Workload == KV {
		return g.buildKV()
	}
	var head string
	switch g.Workload {
	case RPC:
		head = "GET / HTTP/1.1\r\nHost: paste\r\n\r\n"
	case WAL:
		method := "POST /"
		if g.Put {
			method = "PUT /" + g.name(0)
		}
		head = fmt.Sprintf("%s HTTP/1.1\r\nHost: paste\r\nContent-Length: %d\r\n\r\n", method, g.Size)
	}
	size, copies := len(head), 1
	if g.Workload != RPC {
		size, copies = len(head)+g.Size, g.Connections
	}
	if size > (4<<30)/copies {
		return fmt.Errorf("load generator: %d connections with bodies of %d bytes need more than 4 GiB", g.Connections, g.Size)
	}
	var err error
	g.mem, err = unix.Mmap(-1, 0, size*copies, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("load generator: map %d bytes for requests: %w", size*copies, err)
	}
	for i := range g.conns {
		c := &g.conns[i]
		c.id, c.fd = i, -1
		at := 0
		if copies > 1 {
			at = i * size
		}
		c.req = g.mem[at : at+size : at+size]
		copy(c.req, head)
		if name := g.name(i); name != "" {
			copy(c.req[len("PUT /"):], name)
		}
		c.body = c.req[len(head):]
		if len(c.body) > 0 {
			FillBody(c.body, g.Run, i, 0)
		}
	}
	return nil
}

// name is what a connection stores under, "" if under nothing.
func (g *generator) name(conn int) string {
	if g.Workload != WAL || !g.Put {
		return ""
	}
	return fmt.Sprintf("c%08d", conn)
}

func (g *generator) free() {
	for i := range g.conns {
		if c := &g.conns[i]; c.fd >= 0 {
			_ = unix.Close(c.fd)
			c.fd = -1
		}
	}
	_ = unix.Munmap(g.mem)
	g.mem = nil
	if g.batches != nil {
		_ = unix.Munmap(g.batches)
		g.batches = nil
	}
	g.Live.Connected.Store(0)
}

// connectAll makes the first connections. A refused one is an error unless
// Reconnect is set.
func (g *generator) connectAll() error {
	g.now = monotonic()
	for i := range g.conns {
		if g.stop.Load() {
			return nil
		}
		c := &g.conns[i]
		if err := g.dial(c); err != nil {
			if !g.Reconnect {
				return fmt.Errorf("load generator: connection %d of %d to %s: %w", i+1, len(g.conns), g.Addr, err)
			}
			g.down++
			c.retryAt = g.now + int64(retryDelay)
		}
	}
	return nil
}

// dial connects c and tells the engine.
func (g *generator) dial(c *conn) error {
	family, sa := unix.AF_INET, unix.Sockaddr(nil)
	if a := g.Addr.Addr(); a.Unmap().Is4() {
		sa = &unix.SockaddrInet4{Port: int(g.Addr.Port()), Addr: a.Unmap().As4()}
	} else {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(g.Addr.Port()), Addr: a.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err := connect(fd, sa); err != nil {
		_ = unix.Close(fd)
		return err
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	c.fd = fd
	c.gen++
	c.resp.reset()
	c.unsent, c.resting = nil, false
	g.Live.Connected.Add(1)
	g.now = monotonic()
	return g.connected(c)
}

// connect is a blocking connect with a time limit on a non-blocking socket.
func connect(fd int, sa unix.Sockaddr) error {
	err := unix.Connect(fd, sa)
	if !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	deadline := time.Now().Add(dialTimeout)
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(p, int(time.Until(deadline).Milliseconds())+1)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("poll: %w", err)
		case n == 0:
			return fmt.Errorf("connect: %w", unix.ETIMEDOUT)
		}
		e, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && e != 0 {
			err = unix.Errno(e)
		}
		return err
	}
}

// lost closes a connection; it will be made again, or the run is over.
func (g *generator) lost(c *conn, why error) {
	if c.fd < 0 {
		return
	}
	// io_uring operations hold the socket open beyond close; this ends them.
	_ = unix.Shutdown(c.fd, unix.SHUT_RDWR)
	_ = unix.Close(c.fd)
	c.fd = -1
	c.gen++
	// Whether the outstanding request was carried out is unknown: its number
	// is not used again.
	c.n++
	if c.batch != nil {
		c.n += uint64(len(c.batch.ops))
	}
	g.Live.Connected.Add(-1)
	if g.begun {
		g.res.Errors++
	}
	if !g.Reconnect {
		if g.fatal == nil {
			g.fatal = fmt.Errorf("load generator: %w: connection %d: %w", ErrLost, c.id, why)
		}
		return
	}
	g.down++
	c.retryAt = g.now + int64(retryDelay)
}

// revive tries to make the connections that are down and due.
func (g *generator) revive() {
	for i := range g.conns {
		c := &g.conns[i]
		if c.fd >= 0 || c.retryAt > g.now || g.stop.Load() {
			continue
		}
		if err := g.dial(c); err != nil {
			if c.fd >= 0 {
				_ = unix.Shutdown(c.fd, unix.SHUT_RDWR)
				_ = unix.Close(c.fd)
				c.fd = -1
				c.gen++
				g.Live.Connected.Add(-1)
			}
			g.now = monotonic()
			c.retryAt = g.now + int64(retryDelay)
			continue
		}
		g.down--
		g.Live.Reconnects.Add(1)
	}
}

// nextRequest prepares c's request and returns its bytes.
func (g *generator) nextRequest(c *conn) []byte {
	if g.Workload == KV {
		return g.nextKV(c)
	}
	setID(c.body, g.Run, c.id, c.n)
	c.resp.left = int64(len(c.body)) // of an echo
	c.sentAt = g.now
	return c.req
}
