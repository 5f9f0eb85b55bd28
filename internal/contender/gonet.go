package contender

import (
	"context"
	"net"
	"net/netip"
	"sync"
)

// goNet is the server that a Go programmer writes: a goroutine and a buffer per
// connection, the log behind a mutex.
type goNet struct {
	*Config
	replies replies

	mu    sync.Mutex
	store store

	connMu sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

func runGoNet(ctx context.Context, cfg *Config) error {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // as the others
	ln, err := lc.Listen(ctx, "tcp", cfg.Addr.String())
	if err != nil {
		return err
	}
	s := &goNet{Config: cfg, replies: newReplies(cfg.ResponseBytes), conns: map[net.Conn]struct{}{},
		store: store{pool: cfg.Pool, stats: cfg.Stats}}
	defer context.AfterFunc(ctx, func() { s.shut(ln) })()
	cfg.Ready(netip.MustParseAddrPort(ln.Addr().String()))
	var wg sync.WaitGroup
	for {
		c, err := ln.Accept()
		if err != nil {
			s.shut(ln)
			wg.Wait()
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if s.add(c) {
			wg.Add(1)
			go func() {
				defer wg.Done()
				s.serve(c)
			}()
		}
	}
}

func (s *goNet) add(c net.Conn) bool {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	if s.closed {
		_ = c.Close()
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *goNet) shut(ln net.Listener) {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	s.closed = true
	_ = ln.Close()
	for c := range s.conns {
		_ = c.Close()
	}
}

type goNetConn struct {
	session
	srv  *goNet
	body []byte
	out  []byte
}

func (s *goNet) serve(nc net.Conn) {
	defer func() {
		_ = nc.Close()
		s.connMu.Lock()
		delete(s.conns, nc)
		s.connMu.Unlock()
	}()
	c := &goNetConn{srv: s}
	buf := make([]byte, 16<<10)
	for !c.close {
		n, err := nc.Read(buf)
		if n > 0 {
			s.Stats.Requests.Add(c.feed(buf[:n], &s.replies, c))
		}
		if len(c.out) > 0 {
			if _, werr := nc.Write(c.out); werr != nil {
				return
			}
			c.out = c.out[:0]
		}
		if err != nil {
			return
		}
	}
}

// piece implements sink. The record is durable when it returns.
func (c *goNetConn) piece(p []byte, last bool) error {
	if len(c.body) > 0 || !last {
		c.body = append(c.body, p...)
		p = c.body
	}
	if !last {
		return nil
	}
	c.srv.mu.Lock()
	err := c.srv.store.appendCopy(p)
	if err == nil {
		err = c.srv.store.commit()
	}
	c.srv.mu.Unlock()
	c.body = c.body[:0]
	if cap(c.body) > 1<<20 {
		c.body = nil
	}
	return err
}

// reply implements sink.
func (c *goNetConn) reply(b []byte) { c.out = append(c.out, b...) }
