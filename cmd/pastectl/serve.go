package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strings"
	"time"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/internal/httpd"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/kv"
	"github.com/spf13/cobra"
)

// serveSpin is how long an idle server looks at its rings before it sleeps:
// about what going to sleep and being woken cost, on a virtual machine.
const serveSpin = 50 * time.Microsecond

// maxResponse bounds --response-bytes: the answer is rendered once for each way
// to say what becomes of the connection, and stays in memory.
const maxResponse = 64 << 20

func newServeCmd(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve from packet buffers",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newServeHTTPCmd(e), newServeKVCmd(e))
	return cmd
}

// serveOptions are the flags of the servers.
type serveOptions struct {
	cfg        httpd.Config
	bodyLimit  sizeFlag
	nic        string
	pool       string
	poolSize   sizeFlag
	sizeGiven  bool
	frameSize  int
	rings      int
	cpu        int
	busyPoll   bool
	durableAck bool
	spin       time.Duration
	copybreak  int
	mode       bpf.XDPMode
	json       bool
}

func newServeHTTPCmd(e env) *cobra.Command {
	o := serveOptions{poolSize: 1 << 30, bodyLimit: httpd.DefaultBodyLimit}
	var persist, onFull string
	cmd := &cobra.Command{
		Use:   "http",
		Short: "Serve HTTP/1.1: GET from memory, POST and PUT into the pool's log",
		Long: `Serve HTTP/1.1 over kernel TCP whose payload arrives in the buffers of a pool
file. GET is answered with a body of --response-bytes. The body of a POST or PUT
becomes one record of the pool's log, where the interface put it, before it is
answered; the answer's X-Paste-Seq is the record's number ("pastectl pool log").

The pool is created if there is none. The interface is attached for as long as
the server runs, unless "pastectl attach" did that. Without --nic, and for
clients that come in by another interface, everything works by copying.

Prints one line when it is ready, and one when SIGINT or SIGTERM ends it.`,
		Example: `  pastectl serve http --nic eth0 --listen 10.0.0.1:8080 --pool /dev/shm/log
  curl -T file http://10.0.0.1:8080/`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.cfg.Persist, err = httpd.ParsePersist(persist); err != nil {
				return newUsageError(cmd, err)
			}
			if o.cfg.OnFull, err = httpd.ParseOnFull(onFull); err != nil {
				return newUsageError(cmd, err)
			}
			if o.cfg.ResponseBytes < 1 || o.cfg.ResponseBytes > maxResponse {
				return newUsageError(cmd, fmt.Errorf("--response-bytes must be 1 to %d", maxResponse))
			}
			if err := o.check(cmd, e); err != nil {
				return err
			}
			if err := serveHTTP(cmd.Context(), e, &o); err != nil {
				return fmt.Errorf("serve http: %w", err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	o.flags(cmd)
	f.IntVar(&o.cfg.ResponseBytes, "response-bytes", httpd.DefaultResponseBytes, "length of the body that answers a GET")
	f.StringVar(&persist, "persist", httpd.PersistZeroCopy.String(), "what becomes of a body: zero-copy, copy or none")
	f.StringVar(&onFull, "on-full", httpd.Refuse.String(), "when pool or log are full: refuse (507), or wrap (drop the older half of the log)")
	return cmd
}

// flags defines what all servers have.
func (o *serveOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.nic, "nic", "", "interface to receive from; without it all payload is copied")
	f.StringVar(&o.cfg.Addr, "listen", "", "address and port to listen on, such as 10.0.0.1:8080 or [fd00::1]:8080")
	f.StringVar(&o.pool, "pool", "", "pool file on tmpfs, hugetlbfs, DAX or an ordinary disk, or a device-DAX device")
	f.Var(&o.poolSize, "pool-size", "size of the pool if it has to be created; of a device, all of it if this is not given")
	f.IntVar(&o.frameSize, "frame-size", pmem.DefaultFrameSize, "bytes per packet buffer if the pool has to be created: 2048 or 4096")
	f.IntVar(&o.cfg.MaxConns, "max-connections", httpd.DefaultMaxConns, "connections per ring, beyond which clients get 503")
	f.Var(&o.bodyLimit, "body-limit", "size beyond which a body gets 413")
	f.DurationVar(&o.cfg.HeaderTimeout, "header-timeout", httpd.DefaultHeaderTimeout, "how long a request's header may take; 0: for ever")
	f.DurationVar(&o.cfg.IdleTimeout, "idle-timeout", httpd.DefaultIdleTimeout, "how long a connection may wait for its next request; 0: for ever")
	f.DurationVar(&o.cfg.StallTimeout, "stall-timeout", httpd.DefaultStallTimeout, "how long a client may take to send or to read 4 KiB; 0: for ever")
	f.BoolVar(&o.durableAck, "durable-ack", false, "make payload durable before TCP acknowledges it")
	f.IntVar(&o.copybreak, "copybreak", 0, "let segments with less payload than this many bytes pass AF_XDP, and copy them: 0 = 256 if the NIC has zero-copy, else 1400; negative: none pass")
	f.DurationVar(&o.spin, "spin", serveSpin, "how long an idle server looks at its rings before it sleeps")
	f.BoolVar(&o.busyPoll, "busy-poll", false, "never sleep: lower latency for a whole CPU")
	f.IntVar(&o.rings, "rings", 1, "ring pairs, each with a thread")
	f.IntVar(&o.cpu, "cpu", -1, "CPU of the first ring's thread, the next ones on the following CPUs; -1: not pinned")
	f.Var(&o.mode, "xdp-mode", "how to attach the interface")
	f.BoolVar(&o.json, "json", false, "print JSON, one object per line")
}

// check verifies the flags of all servers and completes the configuration.
func (o *serveOptions) check(cmd *cobra.Command, e env) error {
	for _, name := range []string{"listen", "pool"} {
		if f := cmd.Flag(name); f.Value.String() == "" {
			return newUsageError(cmd, fmt.Errorf("missing --%s", name))
		}
	}
	if o.cfg.MaxConns < 1 || o.rings < 1 || o.bodyLimit < 1 {
		return newUsageError(cmd, errors.New("--max-connections, --body-limit and --rings must be positive"))
	}
	if o.spin < 0 {
		return newUsageError(cmd, errors.New("--spin must not be negative; --busy-poll never sleeps"))
	}
	o.cfg.BodyLimit = int64(o.bodyLimit)
	o.sizeGiven = cmd.Flag("pool-size").Changed
	for _, limit := range []*time.Duration{&o.cfg.HeaderTimeout, &o.cfg.IdleTimeout, &o.cfg.StallTimeout} {
		if *limit < 0 {
			return newUsageError(cmd, errors.New("--header-timeout, --idle-timeout and --stall-timeout must not be negative"))
		}
		if *limit == 0 {
			*limit = -1 // where 0 means the default
		}
	}
	if o.cpu >= 0 {
		for i := range o.rings {
			o.cfg.CPUs = append(o.cfg.CPUs, o.cpu+i)
		}
	}
	o.cfg.Logger = slog.New(slog.NewTextHandler(e.stderr, nil))
	return nil
}

// serveEvent is one line of a server's --json.
type serveEvent struct {
	Event string `json:"event"` // "ready" or "stopped"
	URL   string `json:"url"`
	// Records found in the log when the pool was opened.
	Records uint64           `json:"records,omitempty"`
	KV      *kv.Stats        `json:"kv,omitempty"`
	Port    *pasteapi.Status `json:"port,omitempty"`
	HTTP    *httpd.Stats     `json:"http,omitempty"`
}

func serveHTTP(ctx context.Context, e env, o *serveOptions) (err error) {
	pool, err := o.openPool()
	if err != nil {
		return err
	}
	started := false
	defer func() { err = errors.Join(err, closePool(pool, started)) }()
	srv, err := httpd.New(o.cfg, pool)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.Close()) }()

	port, err := o.open(ctx, pool, srv, 4*o.cfg.ResponseBytes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, port.Close()) }()
	url := "http://" + srv.Addr().String()
	status := port.Status()
	found := pool.Log().Recovery().Records
	if o.json {
		err = json.NewEncoder(e.stdout).Encode(serveEvent{Event: "ready", URL: url, Records: found, Port: &status})
	} else {
		_, err = fmt.Fprintf(e.stdout, "ready: %s nic=%s pool=%s (%s: %s) records=%d\n",
			url, describeNIC(&status), status.Pool.Path, status.Pool.Backing, status.Pool.Durability, found)
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}

	started = true
	err = srv.Run(ctx, ringsOf(port)...)
	status = port.Status()
	stats := srv.Stats()
	if o.json {
		return errors.Join(err, json.NewEncoder(e.stdout).Encode(serveEvent{Event: "stopped", URL: url, Port: &status, HTTP: &stats}))
	}
	fmt.Fprintf(e.stdout, "stopped: %d requests on %d connections, %d bodies stored (%s); %d payloads received in place, %d copied; %d system calls\n",
		stats.Requests, stats.Accepted, stats.Stored, sizeFlag(min(stats.StoredBytes, math.MaxInt64)).Human(),
		status.Stats.Delivered, status.Stats.Stray, status.Stats.Syscalls)
	return err
}

// openPool opens the pool, or makes one.
func (o *serveOptions) openPool() (*pmem.Pool, error) {
	size := int64(o.poolSize)
	// The default is for files: a device is taken as it is.
	if st, err := os.Stat(o.pool); err == nil && st.Mode()&os.ModeCharDevice != 0 && !o.sizeGiven {
		size = 0
	}
	return pmem.OpenOrCreate(o.pool, pmem.Options{Size: size, FrameSize: o.frameSize})
}

// closePool closes a server's pool. One that was made for a server which then
// could not start is removed, while its lock still keeps others out; on a
// device, whose name is not ours to remove, it stays.
func closePool(pool *pmem.Pool, started bool) (err error) {
	if !started && pool.IsNew() && pool.Backing() != pmem.BackingDAX {
		err = os.Remove(pool.Path())
	}
	return errors.Join(err, pool.Close())
}

// open opens the port that a server receives from. reply is the size of the
// largest reply in bytes: one that nobody reads yet must fit.
func (o *serveOptions) open(ctx context.Context, pool *pmem.Pool, srv *httpd.Server, reply int) (*pasteapi.Port, error) {
	opts := pasteapi.Options{
		NIC: o.nic, Pool: pool, Rings: o.rings, MaxConns: o.cfg.MaxConns,
		TxLimit: max(4<<20, reply),
		XDPMode: o.mode, Spin: o.spin, DurableAck: o.durableAck, Copybreak: o.copybreak, BPFFS: bpffsPath(), Logger: o.cfg.Logger,
	}
	if o.busyPoll {
		opts.Spin = -1
	}
	port, err := pasteapi.Open(ctx, opts)
	if err != nil {
		return nil, err
	}
	if err := port.Steer(srv.Addr().Port()); err != nil {
		return nil, errors.Join(err, port.Close())
	}
	return port, nil
}

// ringsOf lists the rings of a port.
func ringsOf(port *pasteapi.Port) []httpd.Ring {
	rings := make([]httpd.Ring, port.NumRings())
	for i := range rings {
		rings[i] = port.Ring(i)
	}
	return rings
}

// describeNIC says which way payload comes.
func describeNIC(s *pasteapi.Status) string {
	if s.NIC == "" {
		return "none (every payload is copied)"
	}
	var modes []string
	for _, q := range s.Queues {
		mode := q.Mode
		if len(modes) == 0 || modes[len(modes)-1] != mode {
			modes = append(modes, mode)
		}
	}
	return fmt.Sprintf("%s (%s, %s)", s.NIC, s.XDP, strings.Join(modes, "/"))
}
