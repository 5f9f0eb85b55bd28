// Package bench measures PASTE against ordinary socket servers on one machine:
// it builds a veth pair with two namespaces, runs one server after the other on
// a CPU of its own, and puts the same load on each from another CPU.
//
// What is the same for every contender: the CPU of the server and of the receive
// processing of its end of the veth pair (threaded NAPI), the congestion control,
// the client, the log's format and flush instruction, the kind of memory below
// it. Rounds are interleaved and begin with another contender each time, so that
// a drift of the machine hits everyone.
package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/pastenet/paste/internal/contender"
	"github.com/pastenet/paste/internal/lab"
	"github.com/pastenet/paste/internal/loadgen"
	"golang.org/x/sys/unix"
)

// Paste is the contender that the others are compared with.
const Paste = "paste"

// PasteCopy is PASTE without its interface: the kernel receives as ever, and the
// rings are filled by the verdict program's copy. It shows what the way through
// AF_XDP costs where the NIC has no zero-copy, as a veth has not.
const PasteCopy = "paste-copy"

// Names lists the contenders, in the order in which they are shown.
func Names() []string {
	names := []string{Paste, PasteCopy}
	for _, k := range contender.Kinds() {
		names = append(names, string(k))
	}
	return names
}

// Config of a benchmark.
type Config struct {
	Workload    loadgen.Workload
	Connections int
	// Size in bytes of a POST's body (wal) or of the response's (rpc).
	Size int
	// Duration of one measurement: each contender is measured Rounds times.
	Duration, Warmup time.Duration
	Rounds           int
	Contenders       []string
	// BusyPoll makes servers and client poll without sleeping, for very few
	// connections.
	BusyPoll bool
	// RPS receives by packet steering instead of threaded NAPI, see lab.Pin.
	RPS                  bool
	ServerCPU, ClientCPU int
	PoolSize             int64
	// Persist is PASTE's mode for wal: zero-copy or copy.
	Persist string
	// Dir on a tmpfs for the pools; /dev/shm when empty.
	Dir string
	// Exe is a program that understands the commands "bench exec" (Exec),
	// "bench server" (Serve) and "serve http"; this one when empty.
	Exe string
	// Prefix of the lab's names, see lab.Config.
	Prefix string
	// Custom, if set, brings a workload and contenders of its own.
	Custom *Custom
	// Progress, if set, is called now and then from one goroutine at a time.
	Progress func(Progress)
}

// Custom is a workload with its contenders.
type Custom struct {
	// Names of all contenders; the one called Paste is compared with the others.
	Names []string
	// Command returns a contender's program and arguments. dir is empty, for its
	// data, and removed afterwards. The first line of output says that it runs.
	Command func(name string, addr netip.AddrPort, nic, dir string) []string
	// Prepare is called in the client's namespace before a measurement.
	Prepare func(ctx context.Context, name string, addr netip.AddrPort) error
	// Load completes what the generator is told.
	Load func(name string, c *loadgen.Config)
	// Title says for the report what is special.
	Title string
}

// Progress tells where a benchmark is.
type Progress struct {
	Contender     string
	Round, Rounds int // Round counts from 1
	Step, Steps   int // measurements finished, measurements in all
	// Elapsed of Total for the measurement under way, warm-up included.
	Elapsed, Total time.Duration
	Requests       uint64 // acknowledged in this measurement so far
	// Done is set once per measurement, with its outcome.
	Done *Sample
}

// Sample is the outcome of one measurement.
type Sample struct {
	RPS        float64
	Latency    *hdrhistogram.Histogram // nanoseconds
	ServerBusy float64                 // share of the server's CPU that wasn't idle
	ClientBusy float64
	Non2xx     uint64
	Errors     uint64
	// Syscalls of the server per 1000 requests, negative when not known.
	Syscalls float64
}

func (c *Config) fill() error {
	names := Names()
	if c.Custom != nil {
		names = c.Custom.Names
	} else if c.Workload != loadgen.RPC && c.Workload != loadgen.WAL {
		return fmt.Errorf("unknown workload %q: want rpc or wal", c.Workload)
	}
	if c.Connections < 1 || c.Connections > 20000 {
		return fmt.Errorf("%d connections: want 1 to 20000", c.Connections)
	}
	if c.Size < 1 || c.Size > 32<<20 {
		return fmt.Errorf("size of %d bytes: want 1 B to 32 MiB", c.Size)
	}
	if c.Duration < 100*time.Millisecond {
		return fmt.Errorf("duration of %v: want 100 ms or more", c.Duration)
	}
	if c.Rounds < 1 {
		return fmt.Errorf("%d rounds: want 1 or more", c.Rounds)
	}
	if len(c.Contenders) == 0 {
		return errors.New("no contender")
	}
	for i, n := range c.Contenders {
		if !slices.Contains(names, n) {
			return fmt.Errorf("unknown contender %q: want %s", n, strings.Join(names, ", "))
		}
		if slices.Contains(c.Contenders[:i], n) {
			return fmt.Errorf("contender %q is named twice", n)
		}
	}
	if c.ServerCPU == c.ClientCPU {
		return fmt.Errorf("server and client share CPU %d: they need one each", c.ServerCPU)
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return fmt.Errorf("read CPU affinity: %w", err)
	}
	for _, cpu := range []int{c.ServerCPU, c.ClientCPU} {
		if !set.IsSet(cpu) {
			return fmt.Errorf("CPU %d can't be used: the machine, or this process's affinity, has %d CPUs and the benchmark needs two of its own", cpu, runtime.NumCPU())
		}
	}
	if c.Dir == "" {
		c.Dir = "/dev/shm"
	}
	if c.Exe == "" {
		c.Exe = "/proc/self/exe"
	}
	if c.Prefix == "" {
		c.Prefix = "ben"
	}
	if c.Persist == "" {
		c.Persist = "zero-copy"
	}
	return nil
}

// dirPrefix is followed by the owner's pid, so that what a killed run left can be
// told from what is in use.
const dirPrefix = "paste-bench-"

// Run runs the benchmark. It needs root. When ctx ends, it stops, cleans up and
// returns ctx's error.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if err := cfg.fill(); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	sweep(cfg.Dir)
	dir := filepath.Join(cfg.Dir, dirPrefix+strconv.Itoa(os.Getpid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer os.RemoveAll(dir)

	// Checksum offload stays on: as with a real NIC, nobody computes or verifies
	// checksums in software who could leave that to the device.
	net := lab.Config{Prefix: cfg.Prefix}
	if !cfg.BusyPoll {
		net.Pin = &lab.Pin{ServerCPU: cfg.ServerCPU, ClientCPU: cfg.ClientCPU, RPS: cfg.RPS}
	}
	// A thread that receives would have to wait for the one that spins on its
	// CPU. Busy-polling, the sender's CPU does the receiving, as veth does by
	// itself, for every contender.
	l, err := lab.New(ctx, net)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer l.Close()

	// Nothing of ours shall run on the server's CPU.
	release, err := pinProcess(cfg.ClientCPU)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer release()

	samples := make(map[string][]Sample)
	p := Progress{Rounds: cfg.Rounds, Steps: cfg.Rounds * len(cfg.Contenders)}
	for round := range cfg.Rounds {
		for i := range cfg.Contenders {
			name := cfg.Contenders[(i+round)%len(cfg.Contenders)]
			p.Contender, p.Round = name, round+1
			m := &measurement{cfg: &cfg, lab: l, name: name, pool: filepath.Join(dir, "pool"), progress: p}
			s, err := m.run(ctx)
			if ctx.Err() != nil {
				return nil, fmt.Errorf("bench: %w", context.Cause(ctx))
			}
			if err != nil {
				return nil, fmt.Errorf("bench: measure %s: %w", name, err)
			}
			samples[name] = append(samples[name], *s)
			p.Step++
			if cfg.Progress != nil {
				done := p
				done.Done = s
				cfg.Progress(done)
			}
		}
	}
	return newReport(&cfg, samples), nil
}

// sweep removes the pools of runs that were killed.
func sweep(dir string) {
	old, _ := filepath.Glob(filepath.Join(dir, dirPrefix+"*"))
	for _, d := range old {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(d), dirPrefix))
		if err == nil && (pid == os.Getpid() || !lab.Alive(pid)) {
			_ = os.RemoveAll(d)
		}
	}
}

// measurement is one contender in one round.
type measurement struct {
	cfg      *Config
	lab      *lab.Lab
	name     string
	pool     string
	progress Progress
}

func (m *measurement) run(ctx context.Context) (*Sample, error) {
	if err := os.RemoveAll(m.pool); err != nil {
		return nil, err
	}
	if m.cfg.Custom != nil {
		if err := os.Mkdir(m.pool, 0o700); err != nil {
			return nil, err
		}
	}
	addr := netip.AddrPortFrom(m.lab.ServerIP4, 8080)
	srv, err := startServer(ctx, m.lab, m.command(addr))
	if err != nil {
		return nil, err
	}
	defer srv.kill()

	live := new(loadgen.Live)
	load := loadgen.Config{
		Addr: addr, Workload: m.cfg.Workload, Connections: m.cfg.Connections, Size: m.cfg.Size,
		Warmup: m.cfg.Warmup, Duration: m.cfg.Duration, CPU: m.cfg.ClientCPU, Live: live,
	}
	if m.cfg.BusyPoll {
		load.Engine = loadgen.Spin
	}
	if custom := m.cfg.Custom; custom != nil {
		if err := m.lab.InClient(func() error { return custom.Prepare(ctx, m.name, addr) }); err != nil {
			return nil, srv.stderr.Explain(err)
		}
		custom.Load(m.name, &load)
	}
	var from, to cpuTimes
	var cpuErr error
	load.OnWindow = func(open bool) {
		t, err := readCPUTimes(m.cfg.ServerCPU, m.cfg.ClientCPU)
		if err != nil {
			cpuErr = err
		} else if open {
			from = t
		} else {
			to = t
		}
	}
	stop := m.watch(live)
	var res *loadgen.Result
	err = m.lab.InClient(func() (err error) {
		res, err = loadgen.Run(ctx, load)
		return err
	})
	stop()
	if err != nil {
		// A server that died says more about it than the client can.
		return nil, srv.stderr.Explain(err)
	}
	if cpuErr != nil {
		return nil, cpuErr
	}
	counts, err := srv.stop()
	if err != nil {
		return nil, err
	}
	if res.Requests == 0 {
		return nil, errors.New("not one request was answered")
	}
	s := &Sample{RPS: res.RPS(), Latency: res.Latency, Non2xx: res.Non2xx, Errors: res.Errors, Syscalls: -1}
	s.ServerBusy, s.ClientBusy = to.busySince(from)
	if counts.Syscalls > 0 && counts.Requests > 0 {
		s.Syscalls = float64(counts.Syscalls) / float64(counts.Requests) * 1000
	}
	return s, nil
}

// watch reports progress until the returned function is called.
func (m *measurement) watch(live *loadgen.Live) (stop func()) {
	if m.cfg.Progress == nil {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		start := time.Now()
		p := m.progress
		p.Total = m.cfg.Warmup + m.cfg.Duration
		for {
			p.Elapsed, p.Requests = min(time.Since(start), p.Total), live.Requests.Load()
			m.cfg.Progress(p)
			select {
			case <-quit:
				return
			case <-tick.C:
			}
		}
	}()
	return func() { close(quit); <-done }
}

// command is the server's command line, without the program.
func (m *measurement) command(addr netip.AddrPort) []string {
	c := m.cfg
	args := []string{c.Exe, "bench", "exec", strconv.Itoa(c.ServerCPU)}
	if c.Custom != nil {
		return append(args, c.Custom.Command(m.name, addr, m.lab.ServerDev, m.pool)...)
	}
	args = append(args, c.Exe)
	if m.name == Paste || m.name == PasteCopy {
		args = append(args, "serve", "http", "--listen", addr.String(),
			"--pool", m.pool, "--pool-size", strconv.FormatInt(c.PoolSize, 10),
			"--response-bytes", strconv.Itoa(m.responseBytes()), "--persist", c.Persist, "--on-full", "wrap", "--json")
		if m.name == Paste {
			args = append(args, "--nic", m.lab.ServerDev)
		}
		if c.BusyPoll {
			args = append(args, "--busy-poll")
		}
		return args
	}
	s := ServeConfig{Kind: contender.Kind(m.name), Addr: addr, ResponseBytes: m.responseBytes(), BusyPoll: c.BusyPoll}
	if c.Workload == loadgen.WAL {
		s.Pool, s.PoolSize = m.pool, c.PoolSize
	}
	return append(args, s.args()...)
}

func (m *measurement) responseBytes() int {
	if m.cfg.Workload == loadgen.WAL {
		return 1 // nobody asks for it
	}
	return m.cfg.Size
}
