// Package loadgen is an HTTP/1.1 load generator that is light enough to saturate a
// server on a core of its own: one thread, no goroutine per connection, one system
// call for many requests (io_uring), one clock reading per batch.
//
// Each connection has one request outstanding. The loop is closed, a response
// makes room for the next request; or open (Config.Rate), requests come when they
// come, and one that finds the server busy waits, which counts as its latency.
package loadgen

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/pastenet/paste/internal/uring"
	"golang.org/x/sys/unix"
)

// Workload says what a request is.
type Workload string

const (
	// RPC is a GET; the server is expected to answer with Config.Size bytes.
	RPC Workload = "rpc"
	// WAL is a POST of Config.Size bytes, to be stored before it is answered.
	WAL Workload = "wal"
	// KV reads and writes values of Config.Size bytes under keys of a key-value
	// store, as Config.KV says.
	KV Workload = "kv"
	// Echo is Config.Size bytes, to be sent back.
	Echo Workload = "echo"
	// Sink is a stream in writes of Config.Size bytes that nobody answers. A
	// request is as many bytes that the server's kernel has acknowledged.
	Sink Workload = "sink"
)

// Engine says how the generator talks to the kernel.
type Engine string

const (
	// Auto is IOUring where there is one, else Epoll.
	Auto Engine = ""
	// IOUring receives by multishot into a shared set of buffers and sends in
	// batches.
	IOUring Engine = "io_uring"
	// Epoll reads and writes each connection that is ready.
	Epoll Engine = "epoll"
	// Spin tries each connection in turn and never sleeps: the lowest latency,
	// for very few connections.
	Spin Engine = "spin"
)

// Config of a run.
type Config struct {
	Addr        netip.AddrPort
	Workload    Workload
	Connections int
	// Size of the body in bytes: of a request for WAL, of a response for RPC.
	// An RPC response of another size counts as an error; -1 takes any.
	Size int
	// Put has WAL store by PUT, each connection under a name of its own, instead of POST.
	Put bool
	// Rate of requests per second that are offered, at random times, whatever the
	// server does; 0 is a closed loop.
	Rate float64
	// Duration of the measurement, which follows Warmup.
	Warmup, Duration time.Duration
	// CPU binds the generator's thread; -1 leaves it.
	CPU    int
	Engine Engine
	// Reconnect tries again, every few milliseconds, when a connection is lost or
	// refused. Without, the first loss ends the run.
	Reconnect bool
	// KV describes the KV workload.
	KV KVConfig
	// OnAck is told of every acknowledged request, warm-up included, on the
	// generator's thread: the connection's number and the request's number on
	// it, as in the body (see ParseBody).
	OnAck func(conn int, n uint64)
	// OnWindow is told when the measured window opens and closes, on the
	// generator's thread.
	OnWindow func(open bool)
	// Run is written into each body to tell several runs apart.
	Run uint32
	// Live, if set, is updated while the run goes on.
	Live *Live
}

// Live is what can be watched from another goroutine while a run goes on.
type Live struct {
	Requests   atomic.Uint64 // acknowledged, warm-up included
	Reconnects atomic.Uint64
	Connected  atomic.Int64
}

// Result of a run. Everything but Reconnects and Acked excludes the warm-up.
type Result struct {
	Elapsed    time.Duration
	Requests   uint64                  // answered with 2xx
	Non2xx     uint64                  // answered otherwise
	Errors     uint64                  // lost connections, malformed or mis-sized responses
	Reconnects uint64                  // connections made after the first ones
	Acked      uint64                  // answered with 2xx, warm-up included
	Latency    *hdrhistogram.Histogram // nanoseconds, of 2xx answers; with a rate, from when a request was due
	Queued     uint64                  // requests of Rate that were due when no connection was free
	Busy       float64                 // CPU time of the generator's thread / Elapsed
	Syscalls   uint64                  // made by the generator
	Engine     Engine                  // that was used
}

// RPS is the rate of successful requests per second.
func (r *Result) RPS() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Requests) / r.Elapsed.Seconds()
}

// ErrLost means that a connection was lost and Config.Reconnect not set.
var ErrLost = errors.New("connection lost")

const (
	retryDelay  = 5 * time.Millisecond
	dialTimeout = time.Minute
	tick        = 20 * time.Millisecond // longest sleep of an engine
)

// generator is the state that the engines share. One thread only.
type generator struct {
	Config
	conns []conn
	mem   []byte // the requests
	// batches are requests that are sent at once.
	batches []byte

	now       int64 // monotonic nanoseconds, read once per batch
	from, to  int64 // the measured window
	stop      atomic.Bool
	down      int // connections waiting to be made again
	begun     bool
	startCPU  int64
	startSys  uint64
	syscalls  uint64
	res       Result
	fatal     error
	keys      *keys               // of KV
	pace      *pace               // of Rate, nil in a closed loop
	connected func(c *conn) error // engine: a connection came up
}

// Run runs on the calling thread, in its network namespace, until the duration
// is over or ctx ends, which is not an error: the result then covers what was
// measured until then.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	if cfg.Connections < 1 || cfg.Duration <= 0 || cfg.Size < -1 || cfg.Workload == WAL && cfg.Size < 0 || cfg.Rate < 0 || cfg.Rate > maxRate {
		return nil, fmt.Errorf("load generator: %d connections, size %d, duration %v, rate %g: out of range", cfg.Connections, cfg.Size, cfg.Duration, cfg.Rate)
	}
	switch cfg.Workload {
	case RPC, WAL:
	case KV:
		if err := cfg.KV.check(cfg.Size); err != nil {
			return nil, fmt.Errorf("load generator: %w", err)
		}
		if cfg.Rate > 0 && cfg.KV.Pipeline > 1 {
			return nil, fmt.Errorf("load generator: a rate, and %d requests at once: leave one of them out", cfg.KV.Pipeline)
		}
	case Echo, Sink:
		if cfg.Size < 1 || cfg.Workload == Sink && cfg.Rate > 0 {
			return nil, fmt.Errorf("load generator: %s of %d bytes, rate %g: want 1 byte or more, and no rate for a sink", cfg.Workload, cfg.Size, cfg.Rate)
		}
	default:
		return nil, fmt.Errorf("load generator: unknown workload %q", cfg.Workload)
	}
	if cfg.Live == nil {
		cfg.Live = new(Live)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if cfg.CPU >= 0 {
		var old, set unix.CPUSet
		set.Set(cfg.CPU)
		if err := unix.SchedGetaffinity(0, &old); err != nil {
			return nil, fmt.Errorf("load generator: read affinity: %w", err)
		}
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return nil, fmt.Errorf("load generator: bind to CPU %d: %w", cfg.CPU, err)
		}
		defer func() { _ = unix.SchedSetaffinity(0, &old) }()
	}
	g := &generator{Config: cfg}
	// 1 µs to 60 s at three digits.
	g.res.Latency = hdrhistogram.New(1_000, 60_000_000_000, 3)
	if err := g.build(); err != nil {
		return nil, err
	}
	defer g.free()
	if cfg.Rate > 0 {
		release, err := g.setPace()
		if err != nil {
			return nil, fmt.Errorf("load generator: %w", err)
		}
		defer release()
	}
	defer context.AfterFunc(ctx, func() { g.stop.Store(true) })()
	err := g.run()
	if err == nil {
		err = g.fatal
	}
	g.finish()
	return &g.res, err
}

func (g *generator) run() error {
	if g.Workload == Sink {
		return g.sinkLoop()
	}
	engine := g.Engine
	if engine == Auto || engine == IOUring {
		e, err := newUringEngine(g)
		if err == nil {
			defer e.close()
			g.res.Engine = IOUring
			return e.loop()
		}
		if engine == IOUring || !errors.Is(err, uring.ErrNotAvailable) {
			return fmt.Errorf("load generator: %w", err)
		}
		engine = Epoll
	}
	g.res.Engine = engine
	switch engine {
	case Epoll:
		return g.epollLoop()
	case Spin:
		return g.spinLoop()
	}
	return fmt.Errorf("load generator: unknown engine %q", engine)
}

// tickNow reads the clock, opens the window when it is time and reports whether
// the run goes on.
func (g *generator) tickNow() bool {
	g.now = monotonic()
	if !g.begun && g.now >= g.from {
		g.begun = true
		g.from, g.to = g.now, g.now+int64(g.Duration)
		g.startCPU, g.startSys = threadCPU(), g.syscalls
		if g.OnWindow != nil {
			g.OnWindow(true)
		}
	}
	return g.now < g.to && !g.stop.Load() && g.fatal == nil
}

// startClock begins the warm-up; engines call it once every connection is up.
func (g *generator) startClock() {
	g.now = monotonic()
	g.from = g.now + int64(g.Warmup)
	g.to = g.from + int64(g.Duration)
	if g.pace != nil {
		g.pace.due = g.now
	}
}

func (g *generator) finish() {
	if g.begun {
		if g.OnWindow != nil {
			g.OnWindow(false)
		}
		g.res.Elapsed = time.Duration(g.now - g.from)
		g.res.Syscalls = g.syscalls - g.startSys
		if g.res.Elapsed > 0 {
			g.res.Busy = float64(threadCPU()-g.startCPU) / float64(g.res.Elapsed)
		}
	}
	g.res.Reconnects = g.Live.Reconnects.Load()
}

func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

func threadCPU() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return ts.Nano()
}
