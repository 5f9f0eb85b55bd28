package redisd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/internal/cpupin"
	"github.com/pastenet/paste/internal/redisd/command"
	"github.com/pastenet/paste/internal/redisd/store"
	"github.com/pastenet/paste/internal/ringserve"
	"github.com/pastenet/paste/internal/tcplisten"
)

// Server serves one DB over one or several rings.
type Server struct {
	cfg  Config
	db   *store.DB
	cmd  *command.Server
	addr netip.AddrPort
	life ringserve.Life

	mu    sync.Mutex
	fd    int // listening socket, of the first loop; -1 when closed
	loops []*loop

	active *loop // which has the DB locked
	stats  Stats // guarded by the DB's lock
}

// Stats counts since New, over all rings.
type Stats struct {
	Connections uint64 `json:"connections"` // open now
	Accepted    uint64 `json:"accepted"`
	Rejected    uint64 `json:"rejected"`  // beyond MaxConns
	Commands    uint64 `json:"commands"`  // done, whatever the answer
	Malformed   uint64 `json:"malformed"` // connections ended for a breach of the protocol
	Evicted     uint64 `json:"evicted"`   // connections ended for what they had sent and did not complete
	TimedOut    uint64 `json:"timed_out"` // connections that kept the server waiting
	Expired     uint64 `json:"expired"`   // keys
	Batches     uint64 `json:"batches"`
	Keys        uint64 `json:"keys"`
}

// New listens on cfg.Addr, so that clients can connect; they are served once
// Run is called. The DB stays the caller's. A Server that is not run must be
// closed.
func New(cfg Config, db *store.DB) (*Server, error) {
	if err := cfg.fill(db.Pool()); err != nil {
		return nil, fmt.Errorf("new redis server: %w", err)
	}
	if err := cpupin.Try(cfg.CPUs); err != nil {
		return nil, fmt.Errorf("new redis server: %w", err)
	}
	s := &Server{db: db, cmd: command.NewServer(db)}
	var err error
	if s.fd, s.addr, err = tcplisten.Listen(cfg.Addr, false); err != nil {
		return nil, err
	}
	s.cfg = cfg
	s.cmd.Password, s.cmd.MaxConns, s.cmd.MaxBulk, s.cmd.Verify = cfg.Password, cfg.MaxConns, cfg.MaxBulk, cfg.Verify
	s.cmd.Addr, s.cmd.Port = s.addr.Addr().String(), int(s.addr.Port())
	s.cmd.Shutdown = func() { s.life.Enter(ringserve.Draining) }
	return s, nil
}

// Addr is the address that the server listens on.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Close ends listening. Run does it by itself; afterwards, and when called
// again, Close does nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}

// Run serves on the rings, one thread for each, until ctx is done, SHUTDOWN was
// given, or a ring or the pool fails for good. Then it takes no more connections,
// does the commands that have come or are on their way, and closes everything. It
// can be called once. What package httpd says of several rings applies.
func (s *Server) Run(ctx context.Context, rings ...Ring) error {
	if len(rings) == 0 {
		return errors.New("run redis server: no ring")
	}
	s.mu.Lock()
	if s.fd < 0 || s.loops != nil {
		s.mu.Unlock()
		return errors.New("run redis server: closed or running already")
	}
	fds, err := tcplisten.Spread(s.fd, s.addr, rings)
	if err != nil {
		s.mu.Unlock()
		return fmt.Errorf("run redis server: %w", errors.Join(err, s.Close()))
	}
	loops := make([]*loop, len(rings))
	for i, r := range rings {
		loops[i] = newLoop(s, i, r, fds[i%len(fds)])
	}
	s.loops = loops
	s.life.Wake = func() {
		for _, r := range rings {
			r.Wake()
		}
	}
	s.mu.Unlock()
	defer s.Close()
	defer func() {
		for _, fd := range fds[1:] {
			unix.Close(fd)
		}
	}()
	var wg sync.WaitGroup
	errs := make([]error, len(loops))
	for i, l := range loops {
		wg.Add(1)
		go func() {
			defer wg.Done()
			// A fault in the pool's memory ends the server as any error does.
			errs[i] = s.life.Thread(s.cfg.CPUs, i, func() error { return s.db.Pool().Guard(l.run) })
		}()
	}
	end := s.life.EndWith(ctx, s.cfg.DrainTimeout, s.db.Pool().Lost())
	wg.Wait()
	end()
	if err := s.db.Pool().Err(); err != nil {
		return err // whatever else has failed, failed because of that
	}
	return errors.Join(errs...)
}

// Stats may be called from any goroutine.
func (s *Server) Stats() Stats {
	s.db.Lock()
	defer s.db.Unlock()
	st := s.stats
	st.Connections = uint64(s.cmd.Clients())
	st.Accepted, st.Rejected, st.Commands = s.cmd.Accepted, s.cmd.Rejected, s.cmd.Commands
	st.Expired, st.Keys = s.db.Expired, s.db.Len()
	return st
}
