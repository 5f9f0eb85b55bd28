// Package demo is a tour of PASTE on one machine that needs nothing prepared: a
// veth pair, a pool in memory, a server that is killed while it stores, and the
// question whether everything that it had acknowledged is still there.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pastenet/paste/internal/bench"
	"github.com/pastenet/paste/internal/netlab"
	"golang.org/x/sys/unix"
)

// Config of a demonstration. The zero value but for Out is usable.
type Config struct {
	// Out is told what happens, for people.
	Out io.Writer
	// Live, if set, is told a line about the load that is under way, several
	// times a second, from one goroutine at a time; "" ends it. Each line
	// replaces the one before.
	Live func(line string)
	// Bench, if set, is told how the comparison goes; see bench.Config.
	Bench func(bench.Progress)
	// Dir on a tmpfs for the pools; /dev/shm when empty.
	Dir string
	// Exe is a program with the commands of pastectl; this one when empty.
	Exe string
	// Connections of the load, 50 when 0.
	Connections int
	// LoadTime is how long the server is loaded before it is killed and again
	// after it is back; 2 s when 0.
	LoadTime time.Duration
	// BenchTime is how long each server is measured, in each of two rounds;
	// 1.5 s when 0.
	BenchTime time.Duration
}

// Summary is what came out. Its JSON form is an interface.
type Summary struct {
	Acknowledged uint64 `json:"acknowledged"` // writes that a client was told are stored
	BeforeKill   uint64 `json:"acknowledged_before_kill"`
	AfterRestart uint64 `json:"acknowledged_after_restart"`
	Found        uint64 `json:"found"` // of the acknowledged ones, in the log, byte for byte
	// Unacknowledged ones in the log were stored when the server was killed
	// before it could answer. They are no error.
	Unacknowledged uint64 `json:"found_unacknowledged"`
	Damaged        uint64 `json:"damaged"`
	Refused        uint64 `json:"refused"`    // answered with another status than 2xx
	RestartMS      int64  `json:"restart_ms"` // from the kill until the new server was ready
	UploadBytes    int64  `json:"upload_bytes"`
	InPlaceBytes   uint64 `json:"in_place_bytes"` // received without a copy, by the server that was restarted
	CopiedBytes    uint64 `json:"copied_bytes"`   // copied or read, same server

	// Default is what a server has received that chose its way in.
	Default Default `json:"by_default"`

	// Throughput is nil when the comparison was not possible.
	Throughput *Throughput `json:"throughput"`
	Seconds    float64     `json:"seconds"`
}

// Default is an upload to a server that was not told how to receive.
type Default struct {
	Why          string `json:"why"` // it receives as it does
	SteeredBytes uint64 `json:"steered_bytes"`
	CopiedBytes  uint64 `json:"copied_bytes"`
	ReadBytes    uint64 `json:"read_bytes"`
}

// Throughput compares `serve http` with an epoll server that does the same.
type Throughput struct {
	Connections int     `json:"connections"`
	Size        int     `json:"size"`
	Paste       float64 `json:"paste_rps"`
	Epoll       float64 `json:"epoll_rps"`
	Ratio       float64 `json:"ratio"` // Paste / Epoll
	// The same of --receive steered.
	Steered      float64 `json:"steered_rps"`
	SteeredRatio float64 `json:"steered_ratio"`
}

// ErrLost says that an acknowledged write was not found, or not as it was sent.
var ErrLost = errors.New("acknowledged writes were lost")

const (
	bodySize  = 1024    // of the load's requests, bytes
	frameSize = 2048    // of the pool, bytes
	maxPool   = 1 << 30 // bytes
	minPool   = 64 << 20
	dirPrefix = "paste-demo-"
)

// demo is one demonstration under way.
type demo struct {
	Config
	dir      string
	pool     string
	poolSize int64
	lab      *netlab.Lab
	addr     netip.AddrPort
	cpus     []int // of the server and of the client; nil where there is only one
	sum      Summary
	// byDefault lets the server choose its way in.
	byDefault bool
}

// Run runs the demonstration: it needs root, and curl. When ctx ends, it stops,
// cleans up and returns an error that wraps ctx's. Only one at a time may run in
// a process.
func Run(ctx context.Context, cfg Config) (*Summary, error) {
	start := time.Now()
	d := &demo{Config: cfg}
	if err := d.prepare(); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	defer os.RemoveAll(d.dir)
	err := d.tour(ctx)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("demo: %w", context.Cause(ctx))
	}
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	d.sum.Seconds = time.Since(start).Seconds()
	if s := &d.sum; s.Found != s.Acknowledged || s.Damaged > 0 {
		return s, fmt.Errorf("demo: %w: %d of %d found, %d damaged", ErrLost, s.Found, s.Acknowledged, s.Damaged)
	}
	return &d.sum, nil
}

func (d *demo) prepare() error {
	if _, err := exec.LookPath("curl"); err != nil {
		return fmt.Errorf("%w; install it (apt-get install curl)", err)
	}
	if d.Live == nil {
		d.Live = func(string) {}
	}
	if d.Dir == "" {
		d.Dir = "/dev/shm"
	}
	if d.Exe == "" {
		d.Exe = "/proc/self/exe"
	}
	if d.Connections == 0 {
		d.Connections = 50
	}
	if d.LoadTime == 0 {
		d.LoadTime = 2 * time.Second
	}
	if d.BenchTime == 0 {
		d.BenchTime = 1500 * time.Millisecond
	}
	d.sweep()
	var fs unix.Statfs_t
	if err := unix.Statfs(d.Dir, &fs); err != nil {
		return &os.PathError{Op: "statfs", Path: d.Dir, Err: err}
	}
	free := int64(fs.Bavail) * fs.Bsize
	// The comparison's pool comes later, when ours is gone.
	d.poolSize = min(maxPool, free/2) &^ (1<<20 - 1)
	if d.poolSize < minPool {
		return fmt.Errorf("%s has %d MiB free: %d MiB are needed (mount -o remount,size=1G %s)", d.Dir, free>>20, 2*minPool>>20, d.Dir)
	}
	d.cpus = twoCPUs()
	d.dir = filepath.Join(d.Dir, dirPrefix+strconv.Itoa(os.Getpid()))
	d.pool = filepath.Join(d.dir, "pool")
	return os.Mkdir(d.dir, 0o700)
}

// sweep removes the pools of demonstrations that were killed.
func (d *demo) sweep() {
	old, _ := filepath.Glob(filepath.Join(d.Dir, dirPrefix+"*"))
	for _, o := range old {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(o), dirPrefix))
		if err == nil && (pid == os.Getpid() || !netlab.Alive(pid)) {
			_ = os.RemoveAll(o)
		}
	}
}

// twoCPUs picks a CPU for the server and one for the client, or none when this
// process may use only one.
func twoCPUs() []int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil
	}
	var cpus []int
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			if cpus = append(cpus, cpu); len(cpus) == 2 {
				return []int{cpus[1], cpus[0]} // interrupts prefer the first
			}
		}
	}
	return nil
}

func (d *demo) tour(ctx context.Context) error {
	if err := d.build(ctx); err != nil {
		return err
	}
	defer d.lab.Close()
	d.title("A server whose packet buffers are in a pool file, and are filled by the NIC")
	srv, err := d.serve(ctx)
	if err != nil {
		return err
	}
	defer srv.kill()
	d.title("curl, in the client's namespace")
	if err := d.curl(ctx); err != nil {
		return err
	}
	book, srv, err := d.crash(ctx, srv)
	defer srv.kill()
	if err != nil {
		return err
	}
	last, err := srv.stop()
	if err != nil {
		return err
	}
	d.sum.InPlaceBytes, d.sum.CopiedBytes = last.Port.Stats.SteeredBytes, last.Port.Stats.CopiedBytes+last.Port.Stats.ReadBytes
	if err := d.verify(book); err != nil {
		return err
	}
	if err := os.Remove(d.pool); err != nil {
		return err
	}
	if err := d.other(ctx); err != nil {
		return err
	}
	if err := d.lab.Close(); err != nil {
		return err
	}
	return d.compare(ctx)
}

// other shows a server that chooses its way in.
func (d *demo) other(ctx context.Context) error {
	d.title("The other way: the same, where it is up to the server how to receive")
	d.byDefault = true
	srv, err := d.serve(ctx)
	if err != nil {
		return err
	}
	defer srv.kill()
	if err := d.upload(ctx); err != nil {
		return err
	}
	last, err := srv.stop()
	if err != nil {
		return err
	}
	stats := &last.Port.Stats
	d.sum.Default = Default{last.Port.Receive.Why, stats.SteeredBytes, stats.CopiedBytes, stats.ReadBytes}
	d.say("%d bytes of payload were steered, %d copied by the verdict program, %d read from the socket",
		stats.SteeredBytes, stats.CopiedBytes, stats.ReadBytes)
	return os.Remove(d.pool)
}

// build makes the network.
func (d *demo) build(ctx context.Context) (err error) {
	cfg := netlab.Config{Prefix: "demo", Named: true}
	if d.cpus != nil {
		cfg.Pin = &netlab.Pin{ServerCPU: d.cpus[0], ClientCPU: d.cpus[1]}
	}
	if d.lab, err = netlab.New(ctx, cfg); err != nil {
		return err
	}
	d.addr = netip.AddrPortFrom(d.lab.ServerIP4, 8080)
	d.title("A network: a veth pair, its ends in two network namespaces")
	d.say("server  %s in %s, %s", d.lab.ServerDev, d.lab.Server.Name(), d.lab.ServerIP4)
	d.say("client  %s in %s, %s", d.lab.ClientDev, d.lab.Client.Name(), d.lab.ClientIP4)
	return nil
}

// compare measures the same work against a server on ordinary sockets.
func (d *demo) compare(ctx context.Context) error {
	const connections = 100
	d.title("The same work both ways, and on ordinary sockets, for comparison")
	if d.cpus == nil {
		d.say("skipped: server and client need a CPU each, and this process may use one only")
		return nil
	}
	d.say("%d connections, POST of %d bytes, stored before it is answered; a quick look, `pastectl bench` is the measurement", connections, bodySize)
	r, err := bench.Run(ctx, bench.Config{
		Workload: "wal", Connections: connections, Size: bodySize,
		Warmup: 300 * time.Millisecond, Duration: d.BenchTime, Rounds: 2,
		Contenders: []string{bench.PasteSteered, bench.Paste, "epoll"},
		ServerCPU:  d.cpus[0], ClientCPU: d.cpus[1],
		PoolSize: d.poolSize, Dir: d.Dir, Exe: d.Exe, Network: bench.Network{Prefix: "demo"}, Progress: d.Bench,
	})
	if err != nil {
		return err
	}
	t := &Throughput{Connections: connections, Size: bodySize, Ratio: r.Ratios["epoll"]}
	if steered, ok := r.Compare(bench.PasteSteered, "epoll", bench.Rate); ok {
		t.SteeredRatio = steered.Median
	}
	for _, c := range r.Contenders {
		switch c.Name {
		case bench.Paste:
			t.Paste = c.RPS.Median
		case bench.PasteSteered:
			t.Steered = c.RPS.Median
		default:
			t.Epoll = c.RPS.Median
		}
	}
	d.sum.Throughput = t
	return nil
}
