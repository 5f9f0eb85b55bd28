package httpd

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// serverState is where a server is in its life.
type serverState int32

const (
	running  serverState = iota
	draining             // finishing what has begun
	stopped
)

// in reports whether the server has come as far as state.
func (s *Server) in(state serverState) bool { return s.state.Load() >= int32(state) }

// enter takes the server to a later state, and tells its loops.
func (s *Server) enter(state serverState) {
	for {
		old := s.state.Load()
		if old >= int32(state) {
			return
		}
		if s.state.CompareAndSwap(old, int32(state)) {
			break
		}
	}
	for _, l := range s.loops {
		l.ring.Wake()
	}
}

// endWith makes the server drain when ctx is done, and stop when it has drained
// for long enough. The function that it returns ends that; afterwards no ring is
// woken any more.
func (s *Server) endWith(ctx context.Context) (end func()) {
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-ctx.Done():
		case <-ended:
			return
		}
		s.enter(draining)
		limit := time.NewTimer(s.cfg.DrainTimeout)
		defer limit.Stop()
		select {
		case <-limit.C:
			s.enter(stopped)
		case <-ended:
		}
	}()
	return func() {
		close(ended)
		<-done
	}
}

// drain takes the connections that are waiting to be accepted, and no others.
func (l *loop) drain() {
	l.draining = true
	l.acceptAll()
	l.unwatch()
	// It refuses from now on, also where several rings share the socket. It can
	// only fail for a socket that does not listen any more.
	_ = unix.Shutdown(l.fd, unix.SHUT_RD)
}

// dismiss closes the connections on which no request has begun. It is called at
// the end of a batch that has seen what had arrived when draining began.
func (l *loop) dismiss() {
	l.dismissed = true
	for _, c := range l.conns {
		if c != nil && c.phase == serving && !c.sending() && c.wait.part != partBody && c.parser.Idle() {
			l.hangUp(c)
		}
	}
}
