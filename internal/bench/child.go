package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/pastenet/paste/internal/contender"
	"github.com/pastenet/paste/internal/lab"
	"github.com/pastenet/paste/internal/serve"
	"github.com/pastenet/paste/pmem"
	"golang.org/x/sys/unix"
)

// ServeConfig is what a contender's process is told on its command line.
type ServeConfig struct {
	Kind          contender.Kind `json:"kind"`
	Addr          netip.AddrPort `json:"addr"`
	ResponseBytes int            `json:"response_bytes"`
	BusyPoll      bool           `json:"busy_poll"`
	Pool          string         `json:"pool,omitempty"` // empty: bodies are forgotten
	PoolSize      int64          `json:"pool_size,omitempty"`
}

// counts is what a server has done in its whole life.
type counts struct {
	Requests uint64 `json:"requests"`
	Syscalls uint64 `json:"syscalls"`
}

// lastLine is the last line that a server writes to its standard output: counts, or
// the "stopped" event of `serve http --json`.
type lastLine struct {
	counts
	serve.Event
}

func parseCounts(line []byte) (counts, bool) {
	var l lastLine
	if !bytes.HasPrefix(line, []byte("{")) || json.Unmarshal(line, &l) != nil {
		return counts{}, false
	}
	if l.Port != nil && l.HTTP != nil {
		return counts{Requests: l.HTTP.Requests, Syscalls: l.Port.Stats.Syscalls}, true
	}
	return l.counts, true
}

func (s *ServeConfig) args() []string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // no value of these types fails
	}
	return []string{"bench", "server", string(b)}
}

// Serve runs a contender as told by args, which it takes from ServeConfig, until
// ctx ends. It writes one line to out when it is ready and one when it is done.
func Serve(ctx context.Context, args []string, out io.Writer) error {
	var s ServeConfig
	if len(args) != 1 {
		return errors.New("bench server: want one argument")
	}
	if err := json.Unmarshal([]byte(args[0]), &s); err != nil {
		return fmt.Errorf("bench server: %w", err)
	}
	stats := new(contender.Stats)
	cfg := contender.Config{Kind: s.Kind, Addr: s.Addr, ResponseBytes: s.ResponseBytes, BusyPoll: s.BusyPoll, Stats: stats,
		Ready: func(a netip.AddrPort) { fmt.Fprintf(out, "listening on %s\n", a) }}
	if s.Pool != "" {
		pool, err := pmem.Create(s.Pool, pmem.Options{Size: s.PoolSize})
		if err != nil {
			return fmt.Errorf("bench server: %w", err)
		}
		defer pool.Close()
		// All page faults now. PASTE's pool is faulted in when it becomes a
		// UMEM; a contender shall not pay for that while it is measured.
		if err := unix.Madvise(pool.Mem(), unix.MADV_POPULATE_WRITE); err != nil {
			return fmt.Errorf("bench server: populate pool: %w", err)
		}
		cfg.Pool = pool
	}
	if err := contender.Run(ctx, cfg); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(counts{Requests: stats.Requests.Load(), Syscalls: stats.Syscalls.Load()})
}

// They are for a server that hangs, not for one that is slow, nor for a virtual
// machine that its host stops for a minute.
const (
	readyTimeout = 3 * time.Minute
	stopTimeout  = 3 * time.Minute
)

// server is a contender's process.
type server struct {
	cmd    *lab.Cmd
	ready  chan struct{} // closed at the first line of output
	exited chan struct{}
	err    error  // of Wait, once exited is closed
	last   counts // once exited is closed
	stderr lab.Tail
}

// startServer runs a command in the server's namespace, on one CPU, and waits until
// it says that it is ready.
func startServer(ctx context.Context, l *lab.Lab, cpu int, args []string) (*server, error) {
	s := &server{cmd: l.ServerCommand(ctx, args[0], args[1:]...).OnCPU(cpu), ready: make(chan struct{}), exited: make(chan struct{})}
	s.cmd.Stderr = &s.stderr
	s.cmd.WaitDelay = stopTimeout
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	go s.follow(out)
	timeout := time.NewTimer(readyTimeout)
	defer timeout.Stop()
	select {
	case <-s.ready:
		return s, nil
	case <-s.exited:
		return nil, s.stderr.Explain(errors.New("the server ended before it was ready"))
	case <-timeout.C:
		s.kill()
		return nil, s.stderr.Explain(fmt.Errorf("the server was not ready after %v", readyTimeout))
	}
}

// follow reads the server's output to its end.
func (s *server) follow(out io.Reader) {
	defer close(s.exited)
	r := bufio.NewScanner(out)
	r.Buffer(nil, 1<<20)
	for first := true; r.Scan(); first = false {
		if first {
			close(s.ready)
		}
		if c, ok := parseCounts(r.Bytes()); ok {
			s.last = c
		}
	}
	_, _ = io.Copy(io.Discard, out)
	s.err = s.cmd.Wait()
}

// pause takes the CPU away from the server until resume.
func (s *server) pause() error { return s.signal("pause", unix.SIGSTOP) }

func (s *server) resume() error { return s.signal("resume", unix.SIGCONT) }

func (s *server) signal(what string, sig unix.Signal) error {
	if err := s.cmd.Process.Signal(sig); err != nil {
		return s.stderr.Explain(fmt.Errorf("%s the server: %w", what, err))
	}
	return nil
}

// stop asks the server to end and returns what it counted.
func (s *server) stop() (counts, error) {
	if err := s.resume(); err != nil {
		return counts{}, err
	}
	if err := s.cmd.Process.Signal(unix.SIGTERM); err != nil {
		return counts{}, s.stderr.Explain(fmt.Errorf("stop the server: %w", err))
	}
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-s.exited:
	case <-timeout.C:
		s.kill()
		return counts{}, s.stderr.Explain(fmt.Errorf("the server did not end within %v", stopTimeout))
	}
	if s.err != nil {
		return counts{}, s.stderr.Explain(fmt.Errorf("the server failed: %w", s.err))
	}
	return s.last, nil
}

// kill ends the server whatever it does. It may be called at any time.
func (s *server) kill() {
	_ = s.cmd.Process.Kill() // an error when it is gone
	<-s.exited
}
