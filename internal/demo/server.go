package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pastenet/paste/internal/lab"
	"github.com/pastenet/paste/internal/serve"
	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// They are for a server that hangs, not for one that is slow, nor for a virtual
// machine that its host stops for a minute.
const (
	readyTimeout = 3 * time.Minute
	stopTimeout  = 3 * time.Minute
)

// server is a `serve http` in the server's namespace.
type server struct {
	cmd    *lab.Cmd
	events chan serve.Event // "ready", then "stopped"; closed at the end of output
	exited chan struct{}    // closed when the process is gone
	err    error            // of Wait, once exited is closed
	stderr lab.Tail
	once   sync.Once
	ready  serve.Event
}

// command is how a user would start the server, without the program. Small
// payloads come in place too: they pass by default on a NIC without zero-copy, as
// the demo's has none, and it is to show the way that they take with one.
func (d *demo) command() []string {
	return []string{"serve", "http", "--nic", d.lab.ServerDev, "--listen", d.addr.String(),
		"--copybreak", "-1", "--pool", d.pool, "--pool-size", strconv.FormatInt(d.poolSize>>20, 10) + "MiB"}
}

// serve starts the server and waits until it is ready.
func (d *demo) serve(ctx context.Context) (*server, error) {
	d.title("A server whose packet buffers are in a pool file")
	d.say("# pastectl %s", strings.Join(d.command(), " "))
	s, err := d.start(ctx)
	if err != nil {
		return nil, err
	}
	p := s.ready.Port
	d.say("ready: %s in %s mode, %s; pool on %s", p.NIC, p.XDP, queueModes(p), p.Pool.Backing)
	return s, nil
}

// queueModes says how the interface fills the buffers.
func queueModes(p *pasteapi.Status) string {
	modes := map[string]bool{}
	for _, q := range p.Queues {
		modes[q.Mode] = true
	}
	switch {
	case len(modes) == 2:
		return "zero-copy and copy"
	case modes["zero-copy"]:
		return "zero-copy"
	}
	return "copy (a veth has no DMA: its driver copies into our buffers)"
}

func (d *demo) start(ctx context.Context) (*server, error) {
	s := &server{cmd: d.lab.ServerCommand(ctx, d.Exe, append(d.command(), "--json")...), events: make(chan serve.Event, 2), exited: make(chan struct{})}
	if d.cpus != nil {
		s.cmd.OnCPU(d.cpus[0])
	}
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
	s.ready, err = s.wait(serve.Ready, readyTimeout)
	if err != nil {
		s.kill()
		return nil, s.stderr.Explain(err)
	}
	return s, nil
}

// follow reads the server's output to its end.
func (s *server) follow(out io.Reader) {
	defer close(s.exited)
	defer close(s.events)
	r := bufio.NewScanner(out)
	r.Buffer(nil, 1<<20)
	for r.Scan() {
		var e serve.Event
		if json.Unmarshal(r.Bytes(), &e) == nil && e.Event != "" {
			s.events <- e
		}
	}
	_, _ = io.Copy(io.Discard, out)
	s.err = s.cmd.Wait()
}

func (s *server) wait(name string, limit time.Duration) (serve.Event, error) {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	select {
	case e, ok := <-s.events:
		if !ok {
			<-s.exited
			return serve.Event{}, errors.Join(fmt.Errorf("the server ended before it was %s", name), s.err)
		}
		if e.Event != name {
			return serve.Event{}, fmt.Errorf("the server said %q instead of %q", e.Event, name)
		}
		return e, nil
	case <-timeout.C:
		return serve.Event{}, fmt.Errorf("the server was not %s after %v", name, limit)
	}
}

// stop ends the server in an orderly way and returns what it counted.
func (s *server) stop() (serve.Event, error) {
	if err := s.cmd.Process.Signal(unix.SIGTERM); err != nil {
		return serve.Event{}, s.stderr.Explain(fmt.Errorf("stop the server: %w", err))
	}
	e, err := s.wait(serve.Stopped, stopTimeout)
	s.kill() // returns when it is gone
	if err != nil {
		return serve.Event{}, s.stderr.Explain(err)
	}
	return e, nil
}

// kill is kill -9. It may be called at any time, and returns when the process
// is gone.
func (s *server) kill() {
	if s == nil {
		return
	}
	select {
	case <-s.exited:
		return
	default:
	}
	s.once.Do(func() { _ = s.cmd.Process.Kill() }) // an error when it is gone
	<-s.exited
}
