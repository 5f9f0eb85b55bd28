package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/pastenet/paste/internal/childproc"
	"github.com/pastenet/paste/internal/serve"
	"github.com/pastenet/paste/pasteapi"
)

// server is a `serve http` in the server's namespace.
type server struct {
	*childproc.Process
	ready serve.Event
}

// command is how a user would start the server, without the program. Payloads are
// steered, also small ones: nothing is by default on a NIC without zero-copy, as the
// demo's has none, and it is to show the way that they take with one.
func (d *demo) command() []string {
	args := []string{"serve", "http", "--nic", d.lab.ServerDev, "--listen", d.addr.String()}
	if !d.byDefault {
		args = append(args, "--receive", "steered", "--copybreak", "-1")
	}
	return append(args, "--pool", d.pool, "--pool-size", strconv.FormatInt(d.poolSize>>20, 10)+"MiB")
}

// serve starts the server and waits until it is ready.
func (d *demo) serve(ctx context.Context) (*server, error) {
	d.show("# pastectl " + strings.Join(d.command(), " "))
	s, err := d.start(ctx)
	if err != nil {
		return nil, err
	}
	p := s.ready.Port
	if p.Receive.Steered {
		d.say("ready: %s in %s mode, %s; pool on %s", p.NIC, p.XDP, queueModes(p), p.Pool.Backing)
	} else {
		d.say("ready: nothing is steered: %s", p.Receive.Why)
	}
	return s, nil
}

// queueModes says how the interface fills the buffers.
func queueModes(p *pasteapi.Status) string {
	modes := map[string]bool{}
	for _, q := range p.Queues {
		modes[q.Mode.String()] = true
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
	cmd := d.lab.ServerCommand(ctx, d.Exe, append(d.command(), "--json")...)
	if d.cpus != nil {
		cmd.OnCPU(d.cpus[0])
	}
	p, err := childproc.Start(cmd)
	if err != nil {
		return nil, err
	}
	s := &server{Process: p}
	if s.ready, err = s.await(serve.Ready); err != nil {
		s.kill()
		return nil, err
	}
	return s, nil
}

// await waits for the server's next event, which must be the one of that name.
func (s *server) await(name string) (e serve.Event, err error) {
	err = s.Await(name, func(line []byte) bool {
		return json.Unmarshal(line, &e) == nil && e.Event != ""
	})
	if err == nil && e.Event != name {
		err = s.Explain(fmt.Errorf("the server said %q instead of %q", e.Event, name))
	}
	return e, err
}

// stop ends the server in an orderly way and returns what it counted.
func (s *server) stop() (serve.Event, error) {
	if err := s.Stop(); err != nil {
		return serve.Event{}, err
	}
	return s.await(serve.Stopped)
}

// kill is kill -9. It may be called at any time, and returns when the process
// is gone.
func (s *server) kill() {
	if s != nil {
		s.Kill()
	}
}
