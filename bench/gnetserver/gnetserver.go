// Package gnetserver is the contender gnet: the same small HTTP server as the others
// of package contender, on the event loop that Go programmers pick for speed.
package gnetserver

import (
	"context"
	"fmt"
	"time"

	"github.com/panjf2000/gnet/v2"
	"github.com/pastenet/paste/internal/contender"
)

// Kind is the contender's name.
const Kind contender.Kind = "gnet"

// stopTimeout bounds how long the event loop may take to end.
const stopTimeout = time.Minute

// server is one event loop: a process that is measured has one CPU.
type server struct {
	gnet.BuiltinEventEngine
	cfg    *contender.Config
	x      *contender.Exchanger
	booted chan gnet.Engine
}

// Run serves until ctx ends, which is not an error.
func Run(ctx context.Context, cfg *contender.Config) error {
	s := &server{cfg: cfg, x: contender.NewExchanger(cfg), booted: make(chan gnet.Engine, 1)}
	done := make(chan error, 1)
	go func() {
		done <- gnet.Run(s, "tcp://"+cfg.Addr.String(),
			gnet.WithNumEventLoop(1), gnet.WithLockOSThread(true), gnet.WithReuseAddr(true),
			gnet.WithTCPNoDelay(gnet.TCPNoDelay), gnet.WithReadBufferCap(cfg.Fitting(64<<10)), gnet.WithLogger(quiet{}))
	}()
	select {
	case err := <-done:
		return fmt.Errorf("run the event loop: %w", err)
	case engine := <-s.booted:
		cfg.Ready(cfg.Addr)
		select {
		case err := <-done:
			return fmt.Errorf("run the event loop: %w", err)
		case <-ctx.Done():
		}
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if err := engine.Stop(stop); err != nil {
			return fmt.Errorf("stop the event loop: %w", err)
		}
		return <-done
	}
}

// OnBoot is called when the server listens.
func (s *server) OnBoot(e gnet.Engine) gnet.Action {
	s.booted <- e
	return gnet.None
}

// OnOpen is called with each new connection.
func (s *server) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	c.SetContext(s.x.Connect())
	return nil, gnet.None
}

// OnTraffic is called when bytes have come.
func (s *server) OnTraffic(c gnet.Conn) gnet.Action {
	in, err := c.Next(-1)
	if err != nil {
		return gnet.Close
	}
	out, more, err := c.Context().(*contender.Exchange).Handle(in)
	if err != nil {
		return gnet.Shutdown // the log is broken
	}
	if len(out) > 0 {
		if _, err := c.Write(out); err != nil {
			return gnet.Close
		}
	}
	if !more {
		return gnet.Close
	}
	return gnet.None
}

// quiet drops what gnet tells about its work: standard output is read by whoever
// measures.
type quiet struct{}

func (quiet) Debugf(string, ...any)          {}
func (quiet) Infof(string, ...any)           {}
func (quiet) Warnf(string, ...any)           {}
func (quiet) Errorf(string, ...any)          {}
func (quiet) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }
