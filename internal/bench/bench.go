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
	"github.com/pastenet/paste/internal/loadgen"
	"github.com/pastenet/paste/internal/netlab"
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

// PasteNoSpin is PASTE with --spin 0s: it sleeps as soon as there is nothing to do.
// At an offered rate, beside PASTE, it shows what of the CPU time is spinning, and
// what latency that wins.
const PasteNoSpin = "paste-no-spin"

// Names lists the contenders that take part by default, in the order in which
// they are shown. Besides them there are PastePersistCopy, PasteNoSpin and, for each name of
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
	// Size in bytes of a POST's body (wal), the response's (rpc), a message (echo) or
	// a write (sink).
	Size int
	// Rate of requests per second that are offered to each contender, whatever it
	// does; 0 is a closed loop, which shows how much it can do.
	Rate float64
	// Duration of one measurement: each contender is measured Rounds times.
	Duration, Warmup time.Duration
	Rounds           int
	Contenders       []string
	// BusyPoll makes servers and client poll without sleeping, for very few
	// connections.
	BusyPoll bool
	// RPS receives by packet steering instead of threaded NAPI, see netlab.Pin.
	RPS                  bool
	ServerCPU, ClientCPU int
	PoolSize             int64
	// Dir on a tmpfs for the pools; /dev/shm when empty.
	Dir string
	// Exe is a program that understands the commands "bench server" (Serve) and
	// "serve http"; this one when empty.
	Exe string
	// Others are contenders, besides ours, that this very program serves by its
	// command "bench server".
	Others []contender.Kind
	// Prefix of the lab's names, see netlab.Config.
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
	ServerCPU  float64 // busy time of the server's CPU per request, receiving included, microseconds
	Non2xx     uint64
	Errors     uint64
	Queued     uint64 // requests of Rate that found no free connection
}

func (c *Config) fill() error {
	names := Names()
	if c.Custom != nil {
		names = c.Custom.Names
	} else if !slices.Contains([]loadgen.Workload{loadgen.RPC, loadgen.WAL, loadgen.Echo, loadgen.Sink}, c.Workload) {
		return fmt.Errorf("unknown workload %q: want rpc, wal, echo or sink", c.Workload)
	}
	if c.Workload == loadgen.Sink && c.Rate > 0 {
		return errors.New("a sink takes as much as comes: no rate can be offered to it")
	}
	if c.raw() != contender.NotRaw && c.Size > maxRaw {
		return fmt.Errorf("size of %d bytes: want 1 MiB at most for %s", c.Size, c.Workload)
	}
	for _, k := range c.Others {
		names = append(names, string(k))
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
	if c.Rate < 0 {
		return fmt.Errorf("rate of %g requests/s: want 0 (as many as are answered) or more", c.Rate)
	}
	if c.Rounds < 1 {
		return fmt.Errorf("%d rounds: want 1 or more", c.Rounds)
	}
	if len(c.Contenders) == 0 {
		return errors.New("no contender")
	}
	for i, n := range c.Contenders {
		base, exe, other := strings.Cut(n, "@")
		known := slices.Contains(names, base) || (base == PastePersistCopy || base == PasteNoSpin) && c.Custom == nil && c.raw() == contender.NotRaw
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

// maxRaw is the longest message of an echo, or write to a sink.
const maxRaw = 1 << 20

// raw is what servers do under a workload that is not HTTP.
func (c *Config) raw() contender.Raw {
	switch c.Workload {
	case loadgen.Echo:
		return contender.Echo
	case loadgen.Sink:
		return contender.Sink
	}
	return contender.NotRaw
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

	candidates := make(map[string]*candidate)
	defer func() {
		for _, s := range candidates {
			s.close()
		}
	}()
	for i, name := range cfg.Contenders {
		s, err := newCandidate(ctx, &cfg, name, filepath.Join(dir, strconv.Itoa(i)))
		if ctx.Err() != nil {
			return nil, fmt.Errorf("bench: %w", context.Cause(ctx))
		}
		if err != nil {
			return nil, fmt.Errorf("bench: start %s: %w", name, err)
		}
		candidates[name] = s
	}

	samples := make(map[string][]Sample)
	p := Progress{Rounds: cfg.Rounds, Steps: cfg.Rounds * len(cfg.Contenders)}
	for round := range cfg.Rounds {
		for i := range cfg.Contenders {
			name := cfg.Contenders[(i+round)%len(cfg.Contenders)]
			p.Contender, p.Round = name, round+1
			s, err := candidates[name].measure(ctx, p)
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
	for name, s := range candidates {
		counts, err := s.stop()
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
		if err == nil && (pid == os.Getpid() || !netlab.Alive(pid)) {
			_ = os.RemoveAll(d)
		}
	}
}
