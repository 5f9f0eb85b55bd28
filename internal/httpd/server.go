package httpd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/internal/cpupin"
	"github.com/pastenet/paste/internal/intake"
	"github.com/pastenet/paste/internal/ringserve"
	"github.com/pastenet/paste/internal/tcplisten"
	"github.com/pastenet/paste/pmem"
)

// Server answers HTTP requests over one or several rings.
type Server struct {
	cfg   Config
	pool  *pmem.Pool
	addr  netip.AddrPort
	life  ringserve.Life
	fd    int // listening socket, of the first loop; -1 when closed
	loops []*loop
	mu    sync.Mutex // of fd and loops, except for the loops themselves

	handler func() Handler // nil for the log
	closed  func()         // with a handler

	maxFrames int // that the unfinished input of a ring's connections may hold
	reserve   int // frames that the log leaves free for it

	// logMu serialises the log's writers when there is more than one ring. It is
	// held also for what is kept beside the log.
	logMu  sync.Mutex
	kept   *intake.State // nil with a handler
	retain retainer
	// waiting is how many clients wait for records, on all rings.
	waiting atomic.Int64
}

// Stats counts since New, over all rings. Values are those of the last
// completed batch.
type Stats struct {
	Connections uint64 `json:"connections"` // open now
	Accepted    uint64 `json:"accepted"`
	Rejected    uint64 `json:"rejected"` // beyond MaxConns, answered with 503
	Requests    uint64 `json:"requests"` // answered, whatever the status
	Stored      uint64 `json:"stored"`   // bodies appended to the log
	StoredBytes uint64 `json:"stored_bytes"`
	Read        uint64 `json:"read"`      // records that answers have
	Repeated    uint64 `json:"repeated"`  // bodies that were stored already, by their Idempotency-Key
	Dropped     uint64 `json:"dropped"`   // records that went for their size, their age, or because all cursors had them
	Malformed   uint64 `json:"malformed"` // requests refused by the parser
	Full        uint64 `json:"full"`      // answered with 507
	Evicted     uint64 `json:"evicted"`   // lost what they had sent: it held too much of the pool for too long
	TimedOut    uint64 `json:"timed_out"` // connections that kept the server waiting
	Batches     uint64 `json:"batches"`
	Commits     uint64 `json:"commits"`
}

func (s *Stats) add(o *Stats) {
	s.Connections += o.Connections
	s.Accepted += o.Accepted
	s.Rejected += o.Rejected
	s.Requests += o.Requests
	s.Stored += o.Stored
	s.StoredBytes += o.StoredBytes
	s.Read += o.Read
	s.Repeated += o.Repeated
	s.Dropped += o.Dropped
	s.Malformed += o.Malformed
	s.Full += o.Full
	s.Evicted += o.Evicted
	s.TimedOut += o.TimedOut
	s.Batches += o.Batches
	s.Commits += o.Commits
}

// New listens on cfg.Addr, so that clients can connect; they are served once
// Run is called. pool is where bodies go. A Server that is not run must be
// closed.
func New(cfg Config, pool *pmem.Pool) (*Server, error) {
	s, err := newServer(cfg, pool)
	if err != nil {
		return nil, err
	}
	if s.kept, err = intake.Open(pool, s.cfg.Keys); err != nil {
		return nil, fmt.Errorf("new http server: %w", errors.Join(err, s.Close()))
	}
	s.retain = newRetainer(s.cfg.Retain, pool)
	return s, nil
}

func newServer(cfg Config, pool *pmem.Pool) (*Server, error) {
	if err := cfg.fill(); err != nil {
		return nil, fmt.Errorf("new http server: %w", err)
	}
	if err := cpupin.Try(cfg.CPUs); err != nil {
		return nil, fmt.Errorf("new http server: %w", err)
	}
	s := &Server{pool: pool, maxFrames: inputFrames(&cfg, pool)}
	s.reserve = s.maxFrames * cfg.Rings
	if err := cfg.fitBody(pool); err != nil {
		return nil, fmt.Errorf("new http server: %w", err)
	}
	fd, addr, err := tcplisten.Listen(cfg.Addr, false)
	if err != nil {
		return nil, err
	}
	s.cfg, s.addr, s.fd = cfg, addr, fd
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
	if s.kept != nil {
		s.kept.Close()
	}
	if s.closed != nil {
		s.closed()
	}
	return os.NewSyscallError("close", unix.Close(fd))
}

// Run serves on the rings, one thread for each, until ctx is done. Then it
// takes no more connections, closes those that are idle, and lets the others
// finish the request that they have begun, for as long as Config.DrainTimeout;
// it commits what was received, sends what was answered, closes what is left,
// and returns nil. It also returns when a ring fails for good. The rings must use the server's pool and belong to the server
// until Run has returned. It can be called once. Several rings must be all of a
// port's, in their order, and Run be called in the network namespace of New: where
// each ring has a NIC queue, each gets a listening socket, and thereby the
// connections whose frames it sees.
func (s *Server) Run(ctx context.Context, rings ...Ring) error {
	if len(rings) == 0 {
		return errors.New("run http server: no ring")
	}
	replies := newReplies(s.cfg.ResponseBytes)
	s.mu.Lock()
	if s.fd < 0 || s.loops != nil {
		s.mu.Unlock()
		return errors.New("run http server: closed or running already")
	}
	fds, err := tcplisten.Spread(s.fd, s.addr, rings)
	if err != nil {
		s.mu.Unlock()
		return fmt.Errorf("run http server: %w", errors.Join(err, s.Close()))
	}
	for i, r := range rings {
		s.loops = append(s.loops, newLoop(s, i, r, replies))
		s.loops[i].Fd = fds[i%len(fds)]
	}
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
	errs := make([]error, len(s.loops))
	end := s.life.EndWith(ctx, s.cfg.DrainTimeout, s.pool.Lost())
	for i, l := range s.loops {
		wg.Add(1)
		go func() {
			defer wg.Done()
			// A fault in the pool's memory ends the server as any error does.
			errs[i] = s.life.Thread(s.cfg.CPUs, i, func() error { return s.pool.Guard(l.run) })
		}()
	}
	wg.Wait()
	end()
	if err := s.pool.Err(); err != nil {
		return err // whatever else has failed, failed because of that
	}
	return errors.Join(errs...)
}

// Stats may be called from any goroutine.
func (s *Server) Stats() Stats {
	var sum Stats
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.loops {
		l.pubMu.Lock()
		sum.add(&l.pub)
		l.pubMu.Unlock()
	}
	return sum
}
