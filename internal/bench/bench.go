// Package bench measures PASTE against ordinary socket servers on one machine:
// it gives each server a veth pair with two namespaces, runs all of them on one
// CPU, and puts the same load on one after the other from another CPU. Who is
// not measured sleeps.
//
// What is the same for every contender: the CPU of the server and of the receive
// processing of its end of the veth pair (threaded NAPI), the congestion control,
// the client, the log's format and flush instruction, the kind of memory below
// it. Rounds are interleaved and begin with another contender each time, so that
// a drift of the machine hits everyone; as the servers stay, a round can be short,
// and many short rounds are compared better than a few long ones.
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

// PastePersistCopy is PASTE with --persist copy: a body is copied into the log
// instead of being kept in the buffer where it was received.
const PastePersistCopy = "paste-persist-copy"

// Names lists the contenders that take part by default, in the order in which
// they are shown. Besides them there are PastePersistCopy and, for each name of
// PASTE's, NAME@PROGRAM, which runs another build of pastectl.
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
	// Command returns a contender's program and arguments; exe is pastectl. dir is empty, for its
	// data, and removed afterwards. The first line of output says that it runs.
	Command func(name, exe string, addr netip.AddrPort, nic, dir string) []string
	// Prepare is called in the client's namespace before the first round.
	Prepare func(ctx context.Context, name string, addr netip.AddrPort) error
	// Load completes what the generator is told in a round, which counts from 1.
	Load func(name string, round int, c *loadgen.Config)
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
		base, exe, other := strings.Cut(n, "@")
		known := slices.Contains(names, base) || base == PastePersistCopy && c.Custom == nil
		if !known || other && (exe == "" || !isPaste(base)) {
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
	return nil
}

func isPaste(name string) bool { return strings.HasPrefix(name, Paste) }

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

	// Nothing of ours shall run on the server's CPU.
	release, err := pinProcess(cfg.ClientCPU)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer release()

	stands := make(map[string]*stand)
	defer func() {
		for _, s := range stands {
			s.close()
		}
	}()
	for i, name := range cfg.Contenders {
		s, err := newStand(ctx, &cfg, name, filepath.Join(dir, strconv.Itoa(i)))
		if ctx.Err() != nil {
			return nil, fmt.Errorf("bench: %w", context.Cause(ctx))
		}
		if err != nil {
			return nil, fmt.Errorf("bench: start %s: %w", name, err)
		}
		stands[name] = s
	}

	samples := make(map[string][]Sample)
	p := Progress{Rounds: cfg.Rounds, Steps: cfg.Rounds * len(cfg.Contenders)}
	for round := range cfg.Rounds {
		for i := range cfg.Contenders {
			name := cfg.Contenders[(i+round)%len(cfg.Contenders)]
			p.Contender, p.Round = name, round+1
			s, err := stands[name].measure(ctx, p)
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
	syscalls := make(map[string]float64)
	for name, s := range stands {
		counts, err := s.server.stop()
		if err != nil {
			return nil, fmt.Errorf("bench: stop %s: %w", name, err)
		}
		if counts.Syscalls > 0 && counts.Requests > 0 {
			syscalls[name] = float64(counts.Syscalls) / float64(counts.Requests) * 1000
		}
	}
	return newReport(&cfg, samples, syscalls), nil
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

// stand is one contender with what it needs: a veth pair, a process, a place for
// its data.
type stand struct {
	cfg    *Config
	name   string
	exe    string
	addr   netip.AddrPort
	pool   string
	lab    *lab.Lab
	server *server
}

// newStand starts a contender. What it needs on disk is removed with cfg.Dir.
func newStand(ctx context.Context, cfg *Config, name, pool string) (_ *stand, err error) {
	s := &stand{cfg: cfg, name: name, exe: cfg.Exe, pool: pool}
	if base, exe, ok := strings.Cut(name, "@"); ok {
		s.name, s.exe = base, exe
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if cfg.Custom != nil {
		if err := os.Mkdir(pool, 0o700); err != nil {
			return nil, err
		}
	}
	// Checksum offload stays on: as with a real NIC, nobody computes or verifies
	// checksums in software who could leave that to the device.
	net := lab.Config{Prefix: cfg.Prefix}
	if !cfg.BusyPoll {
		net.Pin = &lab.Pin{ServerCPU: cfg.ServerCPU, ClientCPU: cfg.ClientCPU, RPS: cfg.RPS}
	}
	// A thread that receives would have to wait for the one that spins on its
	// CPU. Busy-polling, the sender's CPU does the receiving, as veth does by
	// itself, for every contender.
	if s.lab, err = lab.New(ctx, net); err != nil {
		return nil, err
	}
	s.addr = netip.AddrPortFrom(s.lab.ServerIP4, 8080)
	if s.server, err = startServer(ctx, s.lab, s.command()); err != nil {
		return nil, err
	}
	if custom := cfg.Custom; custom != nil {
		if err := s.lab.InClient(func() error { return custom.Prepare(ctx, s.name, s.addr) }); err != nil {
			return nil, s.server.stderr.Explain(err)
		}
	}
	return s, s.server.pause()
}

func (s *stand) close() {
	if s.server != nil {
		s.server.kill()
	}
	if s.lab != nil {
		s.lab.Close()
	}
}

// measure puts load on the contender for one round. Outside of its rounds it is
// stopped, and cannot disturb the others even if it polls without sleeping.
func (s *stand) measure(ctx context.Context, p Progress) (*Sample, error) {
	if err := s.server.resume(); err != nil {
		return nil, err
	}
	sample, err := s.load(ctx, p)
	return sample, errors.Join(err, s.server.pause())
}

func (s *stand) load(ctx context.Context, p Progress) (*Sample, error) {
	live := new(loadgen.Live)
	load := loadgen.Config{
		Addr: s.addr, Workload: s.cfg.Workload, Connections: s.cfg.Connections, Size: s.cfg.Size,
		Warmup: s.cfg.Warmup, Duration: s.cfg.Duration, CPU: s.cfg.ClientCPU, Live: live,
	}
	if s.cfg.BusyPoll {
		load.Engine = loadgen.Spin
	}
	if s.cfg.Custom != nil {
		s.cfg.Custom.Load(s.name, p.Round, &load)
	}
	var from, to cpuTimes
	var cpuErr error
	load.OnWindow = func(open bool) {
		t, err := readCPUTimes(s.cfg.ServerCPU, s.cfg.ClientCPU)
		if err != nil {
			cpuErr = err
		} else if open {
			from = t
		} else {
			to = t
		}
	}
	stop := s.watch(live, p)
	var res *loadgen.Result
	err := s.lab.InClient(func() (err error) {
		res, err = loadgen.Run(ctx, load)
		return err
	})
	stop()
	if err != nil {
		// A server that died says more about it than the client can.
		return nil, s.server.stderr.Explain(err)
	}
	if cpuErr != nil {
		return nil, cpuErr
	}
	if res.Requests == 0 {
		return nil, errors.New("not one request was answered")
	}
	sample := &Sample{RPS: res.RPS(), Latency: res.Latency, Non2xx: res.Non2xx, Errors: res.Errors}
	sample.ServerBusy, sample.ClientBusy = to.busySince(from)
	return sample, nil
}

// watch reports progress until the returned function is called.
func (s *stand) watch(live *loadgen.Live, p Progress) (stop func()) {
	if s.cfg.Progress == nil {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		start := time.Now()
		p.Total = s.cfg.Warmup + s.cfg.Duration
		for {
			p.Elapsed, p.Requests = min(time.Since(start), p.Total), live.Requests.Load()
			s.cfg.Progress(p)
			select {
			case <-quit:
				return
			case <-tick.C:
			}
		}
	}()
	return func() { close(quit); <-done }
}

// command is the server's command line.
func (s *stand) command() []string {
	c := s.cfg
	args := []string{c.Exe, "bench", "exec", strconv.Itoa(c.ServerCPU)}
	if c.Custom != nil {
		return append(args, c.Custom.Command(s.name, s.exe, s.addr, s.lab.ServerDev, s.pool)...)
	}
	args = append(args, s.exe)
	if !isPaste(s.name) {
		serve := ServeConfig{Kind: contender.Kind(s.name), Addr: s.addr, ResponseBytes: s.responseBytes(), BusyPoll: c.BusyPoll}
		if c.Workload == loadgen.WAL {
			serve.Pool, serve.PoolSize = s.pool, c.PoolSize
		}
		return append(args, serve.args()...)
	}
	args = append(args, "serve", "http", "--listen", s.addr.String(),
		"--pool", s.pool, "--pool-size", strconv.FormatInt(c.PoolSize, 10),
		"--response-bytes", strconv.Itoa(s.responseBytes()), "--on-full", "wrap", "--json")
	if s.name != PasteCopy {
		args = append(args, "--nic", s.lab.ServerDev)
	}
	if s.name == PastePersistCopy {
		args = append(args, "--persist", "copy")
	}
	if c.BusyPoll {
		args = append(args, "--busy-poll")
	}
	return args
}

func (s *stand) responseBytes() int {
	if s.cfg.Workload == loadgen.WAL {
		return 1 // nobody asks for it
	}
	return s.cfg.Size
}
