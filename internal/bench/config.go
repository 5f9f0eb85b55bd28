package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/pastenet/paste/internal/contender"
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

// PasteNoSpin is PASTE with --spin 0s: it sleeps as soon as there is nothing to do.
// At an offered rate, beside PASTE, it shows what of the CPU time is spinning, and
// what latency that wins.
const PasteNoSpin = "paste-no-spin"

// PasteSteered is PASTE with --receive steered: by XDP, AF_XDP and tickets also where
// the NIC has no zero-copy, as a veth has not.
const PasteSteered = "paste-steered"

// Names lists the contenders that take part by default, in the order in which
// they are shown. Besides them there are PastePersistCopy, PasteNoSpin, PasteSteered, Nginx and, for each
// name of PASTE's, NAME@PROGRAM, which runs another build of pastectl.
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
	Network
	ServerCPU, ClientCPU int
	PoolSize             int64
	// Dir on a tmpfs for the pools; /dev/shm when empty.
	Dir string
	// Exe is a program that understands the commands "bench server" (Serve) and
	// "serve http"; this one when empty.
	Exe    string
	Others Others
	// Custom, if set, brings a workload and contenders of its own.
	Custom *Custom
	// Progress, if set, is called now and then from one goroutine at a time.
	Progress func(Progress)
	hooks    hooks
}

// Network says how the veth pairs are made.
type Network struct {
	// Wire makes them behave more like a wire, see netlab.Config.
	Wire bool
	// RPS receives by packet steering instead of threaded NAPI, see netlab.Pin.
	RPS bool
	// Prefix of their names, see netlab.Config.
	Prefix string
}

// Others are contenders besides ours.
type Others struct {
	Kinds []contender.Kind
	// Exe is the program that serves them by its command "bench server"; this very one when
	// empty.
	Exe string
}

// hooks are for measurements within the package; any may be nil.
type hooks struct {
	serve  func(*ServeConfig)    // changes what a server that is not HTTP is told
	window func(open bool) error // is called when the measured window opens and closes
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
	// Run, if set, puts the load on in place of loadgen.Run.
	Run func(context.Context, loadgen.Config) (*loadgen.Result, error)
	// Title says for the report what is special.
	Title string
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
	for _, k := range append(contender.Adapted(), c.Others.Kinds...) {
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
		known := slices.Contains(names, base) || c.Custom == nil && c.variant(base)
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

// variant says whether a name is one of PASTE's that take part only when asked for.
func (c *Config) variant(name string) bool {
	http := c.raw() == contender.NotRaw
	return name == PasteSteered || http && (name == PastePersistCopy || name == PasteNoSpin || name == Nginx)
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
