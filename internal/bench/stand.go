package bench

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/pastenet/paste/internal/contender"
	"github.com/pastenet/paste/internal/lab"
	"github.com/pastenet/paste/internal/loadgen"
)

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
	if s.server, err = startServer(ctx, s.lab, cfg.ServerCPU, s.command()); err != nil {
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
	if c.Custom != nil {
		return c.Custom.Command(s.name, s.exe, s.addr, s.lab.ServerDev, s.pool)
	}
	args := []string{s.exe}
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
