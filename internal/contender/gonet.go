package contender

import (
	"context"
	"net"
	"net/netip"
	"sync"

	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/ringnet"
)

// goNet is the server that a Go programmer writes: a goroutine and a buffer per
// connection, the log behind a mutex.
type goNet struct {
	x       *Exchanger
	readLen int // of each connection's buffer

	connMu sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// listener listens by package net, or over a ring.
func listener(ctx context.Context, cfg *Config) (net.Listener, error) {
	if cfg.Kind == GoNetPaste || cfg.Kind == NetHTTPPaste {
		return ringnet.Listen(ctx, "tcp", cfg.Addr.String(), pasteapi.Options{})
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // as the others
	return lc.Listen(ctx, "tcp", cfg.Addr.String())
}

func runGoNet(ctx context.Context, cfg *Config) error {
	ln, err := listener(ctx, cfg)
	if err != nil {
		return err
	}
	s := &goNet{x: NewExchanger(cfg), readLen: cfg.Fitting(16 << 10), conns: map[net.Conn]struct{}{}}
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

func (s *goNet) serve(nc net.Conn) {
	defer func() {
		_ = nc.Close()
		s.connMu.Lock()
		delete(s.conns, nc)
		s.connMu.Unlock()
	}()
	c := s.x.Connect()
	buf := make([]byte, s.readLen)
	for {
		n, err := nc.Read(buf)
		if n > 0 {
			out, more, herr := c.Handle(buf[:n])
			if len(out) > 0 && herr == nil {
				_, herr = nc.Write(out)
			}
			if herr != nil || !more {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
