package bench

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pastenet/paste/internal/childproc"
	"github.com/pastenet/paste/internal/contender"
	"github.com/pastenet/paste/internal/loadgen"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// candidate is one contender with what it needs: a veth pair, a process, a place for
// its data.
type candidate struct {
	cfg    *Config
	name   string
	exe    string
	addr   netip.AddrPort
	pool   string
	lab    *netlab.Lab
	server *childproc.Process
}

// newCandidate starts a contender. What it needs on disk is removed with cfg.Dir.
func newCandidate(ctx context.Context, cfg *Config, name, pool string) (_ *candidate, err error) {
	s := &candidate{cfg: cfg, name: name, exe: cfg.Exe, pool: pool}
	if base, exe, ok := strings.Cut(name, "@"); ok {
		s.name, s.exe = base, exe
	}
	if slices.Contains(cfg.Others.Kinds, contender.Kind(name)) {
		if s.exe = cfg.Others.Exe; s.exe == "" {
			s.exe = "/proc/self/exe"
		}
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
	// Without Wire checksum offload stays on: as with a real NIC, nobody computes or
	// verifies checksums in software who could leave that to the device.
	net := netlab.Config{Prefix: cfg.Prefix, Wire: cfg.Wire}
	if !cfg.BusyPoll {
		net.Pin = &netlab.Pin{ServerCPU: cfg.ServerCPU, ClientCPU: cfg.ClientCPU, RPS: cfg.RPS}
	}
	// A thread that receives would have to wait for the one that spins on its
	// CPU. Busy-polling, the sender's CPU does the receiving, as veth does by
	// itself, for every contender.
	if s.lab, err = netlab.New(ctx, net); err != nil {
		return nil, err
	}
	s.addr = netip.AddrPortFrom(s.lab.ServerIP4, 8080)
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	if custom := cfg.Custom; custom != nil {
		if err := s.lab.InClient(func() error { return custom.Prepare(ctx, s.name, s.addr) }); err != nil {
			return nil, s.server.Explain(err)
		}
	}
	return s, s.server.Signal(unix.SIGSTOP)
}

// start starts the server and waits for its first line of output.
func (s *candidate) start(ctx context.Context) (err error) {
	args := s.command()
	if s.name == Nginx {
		if args, err = nginxCommand(s); err != nil {
			return err
		}
	}
	s.server, err = childproc.Start(s.lab.ServerCommand(ctx, args[0], args[1:]...).OnCPU(s.cfg.ServerCPU))
	if err != nil {
		return err
	}
	err = s.server.Await("ready", func([]byte) bool { return true })
	if err == nil && s.name == Nginx {
		err = s.server.Explain(s.lab.InClient(func() error { return await(ctx, s.addr) }))
	}
	return err
}

// stop ends the server and returns what it counted, which is nothing if it does
// not count.
func (s *candidate) stop() (last counts, err error) {
	if err := s.server.Stop(); err != nil {
		return counts{}, err
	}
	for line := range s.server.Lines() {
		if c, ok := parseCounts(line); ok {
			last = c
		}
	}
	return last, nil
}

func (s *candidate) close() {
	s.server.Kill()
	if s.lab != nil {
		s.lab.Close()
	}
}

// measure puts load on the contender for one round. Outside of its rounds it is
// stopped, and cannot disturb the others even if it polls without sleeping.
func (s *candidate) measure(ctx context.Context, p Progress) (*Sample, error) {
	if err := s.server.Signal(unix.SIGCONT); err != nil {
		return nil, err
	}
	sample, err := s.load(ctx, p)
	return sample, errors.Join(err, s.server.Signal(unix.SIGSTOP))
}

func (s *candidate) load(ctx context.Context, p Progress) (*Sample, error) {
	live, run := new(loadgen.Live), loadgen.Run
	load := loadgen.Config{
		Addr: s.addr, Workload: s.cfg.Workload, Connections: s.cfg.Connections, Size: s.cfg.Size, Rate: s.cfg.Rate,
		Warmup: s.cfg.Warmup, Duration: s.cfg.Duration, CPU: s.cfg.ClientCPU, Live: live, Put: s.name == Nginx,
	}
	if s.cfg.BusyPoll {
		load.Engine = loadgen.Spin
	}
	if s.cfg.Custom != nil {
		s.cfg.Custom.Load(s.name, p.Round, &load)
		if s.cfg.Custom.Run != nil {
			run = s.cfg.Custom.Run
		}
	}
	var from, to cpuTimes
	var cpuErr error
	load.OnWindow = func(open bool) {
		t, err := readCPUTimes(s.cfg.ServerCPU, s.cfg.ClientCPU)
		if s.cfg.hooks.window != nil {
			err = errors.Join(err, s.cfg.hooks.window(open))
		}
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
		res, err = run(ctx, load)
		return err
	})
	stop()
	if err != nil {
		// A server that died says more about it than the client can.
		return nil, s.server.Explain(err)
	}
	if cpuErr != nil {
		return nil, cpuErr
	}
	if res.Requests == 0 {
		return nil, errors.New("not one request was answered")
	}
	sample := &Sample{RPS: res.RPS(), Latency: res.Latency, Non2xx: res.Non2xx, Errors: res.Errors, Queued: res.Queued}
	sample.ServerBusy, sample.ClientBusy = to.busySince(from)
	sample.ServerCPU = sample.ServerBusy * float64(res.Elapsed.Microseconds()) / float64(res.Requests)
	return sample, nil
}

// watch reports progress until the returned function is called.
func (s *candidate) watch(live *loadgen.Live, p Progress) (stop func()) {
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
func (s *candidate) command() []string {
	c := s.cfg
	if c.Custom != nil {
		return c.Custom.Command(s.name, s.exe, s.addr, s.lab.ServerDev, s.pool)
	}
	if raw := c.raw(); raw != contender.NotRaw || !isPaste(s.name) {
		serve := ServeConfig{Kind: contender.Kind(s.name), Addr: s.addr, ResponseBytes: s.responseBytes(), Raw: raw, BusyPoll: c.BusyPoll}
		if c.Workload != loadgen.RPC {
			serve.MessageBytes = c.Size
		}
		if isPaste(s.name) {
			serve.Kind = Paste
			if s.name != PasteCopy {
				serve.NIC = s.lab.ServerDev
			}
			if s.name == PasteSteered {
				serve.Receive = pasteapi.ReceiveSteered
			}
		}
		if c.Workload == loadgen.WAL || isPaste(s.name) {
			serve.Pool, serve.PoolSize = s.pool, c.PoolSize
		}
		if c.hooks.serve != nil {
			c.hooks.serve(&serve)
		}
		return append([]string{s.exe}, serve.args()...)
	}
	args := []string{s.exe}
	args = append(args, "serve", "http", "--listen", s.addr.String(),
		"--pool", s.pool, "--pool-size", strconv.FormatInt(c.PoolSize, 10),
		"--response-bytes", strconv.Itoa(s.responseBytes()), "--on-full", "wrap", "--json")
	if s.name != PasteCopy {
		args = append(args, "--nic", s.lab.ServerDev)
	}
	if s.name == PastePersistCopy {
		args = append(args, "--persist", "copy")
	}
	if s.name == PasteSteered {
		args = append(args, "--receive", "steered")
	}
	if s.name == PasteNoSpin {
		args = append(args, "--spin", "0s")
	}
	if c.BusyPoll {
		args = append(args, "--busy-poll")
	}
	return args
}

func (s *candidate) responseBytes() int {
	if s.cfg.Workload == loadgen.WAL {
		return 1 // nobody asks for it
	}
	return s.cfg.Size
}
