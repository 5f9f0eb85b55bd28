// Package udpload puts the load of many UDP clients on a server, from one thread and
// without a socket: a client is a port number in the frames of a raw port (package
// netmap). So it takes less of a CPU than any server on sockets, which is what is to be
// measured. Its frames have real checksums, as those of a wire.
package udpload

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/pastenet/paste/internal/cpupin"
	"github.com/pastenet/paste/internal/loadgen"
	"github.com/pastenet/paste/netmap"
	"golang.org/x/sys/unix"
)

// What a request begins with: its number and, if the server does not send everything
// back, whether it is to answer.
const (
	idSize   = 8
	headSize = idSize + 2
	// FlagsAt is where in a datagram the flags are.
	FlagsAt = idSize
	// WantAnswer has a sink answer: with the number of the request, 8 bytes as they
	// came, and how many datagrams it has received so far, 8 bytes in big endian.
	WantAnswer = 1
	// AnswerSize is the length of that.
	AnswerSize = 16
	// MinSize of a datagram.
	MinSize = AnswerSize
	// MaxSize of a datagram.
	MaxSize = 1472
)

const (
	firstPort = 20000
	slots     = 4096
	// lost is how long an answer is waited for.
	lost = int64(20 * time.Millisecond)
	// patience is how long a window is extended to have an answer in it.
	patience = 20 * time.Second
	// inFlight is how many datagrams are on the way at most: a veth's ring takes 256, and
	// drops the rest.
	inFlight = 240
	// Burst is how many datagrams a client sends to a sink at once.
	Burst = 16
	// pushAfter is how many frames are queued before the kernel is told of them.
	pushAfter = 16
)

type client struct {
	n       uint64 // of the last request
	sent    int64  // when
	waiting bool
}

type generator struct {
	loadgen.Config
	ends
	port     *netmap.Port
	clients  []client
	resting  []int // clients whose turn comes again
	template []byte
	sum      uint64
	queued   int
	counted  uint64 // by a sink, as it has told last

	now, from, to int64
	begun         bool
	stop          atomic.Bool
	res           loadgen.Result
}

// Run is loadgen.Run for UDP: cfg.Workload is Echo or Sink, cfg.Connections clients send
// datagrams of cfg.Size bytes from the calling thread's namespace, each with one request
// (of an echo) or Burst of them outstanding. What is lost is sent again, and counts as
// an error.
func Run(ctx context.Context, cfg loadgen.Config) (_ *loadgen.Result, err error) {
	if cfg.Workload != loadgen.Echo && cfg.Workload != loadgen.Sink || cfg.Size < MinSize || cfg.Size > MaxSize ||
		cfg.Connections < 1 || cfg.Connections > 10000 || cfg.Duration <= 0 || cfg.Rate != 0 || !cfg.Addr.Addr().Is4() {
		return nil, fmt.Errorf("UDP load generator: %s of %d bytes, %d clients, duration %v, rate %g, to %v: want echo or sink, %d to %d bytes, 1 to 10000 clients, no rate, an IPv4 address",
			cfg.Workload, cfg.Size, cfg.Connections, cfg.Duration, cfg.Rate, cfg.Addr, MinSize, MaxSize)
	}
	if cfg.Live == nil {
		cfg.Live = new(loadgen.Live)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if cfg.CPU >= 0 {
		var old unix.CPUSet
		if err := errors.Join(unix.SchedGetaffinity(0, &old), cpupin.Pin(cfg.CPU)); err != nil {
			return nil, fmt.Errorf("UDP load generator: %w", err)
		}
		defer func() { _ = unix.SchedSetaffinity(0, &old) }()
	}
	g := &generator{Config: cfg, clients: make([]client, cfg.Connections)}
	g.res.Latency = hdrhistogram.New(1_000, 60_000_000_000, 3)
	dev, err := g.findEnds(ctx)
	if err != nil {
		return nil, fmt.Errorf("UDP load generator: %w", err)
	}
	mem, err := netmap.NewMemory(netmap.MemoryOptions{Buffers: 3 * slots})
	if err != nil {
		return nil, fmt.Errorf("UDP load generator: %w", err)
	}
	defer func() { err = errors.Join(err, mem.Close()) }()
	if g.port, err = netmap.Open(ctx, "netmap:"+dev+"-0", netmap.Options{Memory: mem, Slots: slots}); err != nil {
		return nil, fmt.Errorf("UDP load generator: %w", err)
	}
	defer func() { err = errors.Join(err, g.port.Close()) }()
	defer context.AfterFunc(ctx, func() { g.stop.Store(true) })()
	if err := g.loop(); err != nil {
		return nil, fmt.Errorf("UDP load generator: %w", err)
	}
	g.finish()
	return &g.res, nil
}

func (g *generator) loop() error {
	g.template, g.sum = g.ends.template(g.Size)
	tx := g.port.TX(0)
	for i := range tx.NumSlots {
		copy(tx.Buf(tx.Slot(i)), g.template)
	}
	g.now = monotonic()
	g.from = g.now + int64(g.Warmup)
	g.to = g.from + int64(g.Duration)
	for i := range g.clients {
		g.resting = append(g.resting, i)
	}
	for range min(len(g.clients), inFlight/g.burst()) {
		if err := g.turn(); err != nil {
			return err
		}
	}
	look := g.now
	for g.tick() {
		if _, err := g.port.Poll(netmap.In, 20*time.Millisecond); err != nil {
			return err
		}
		g.now, g.queued = monotonic(), 0
		if err := g.receive(); err != nil {
			return err
		}
		if g.now-look > lost/2 {
			look = g.now
			if err := g.again(); err != nil {
				return err
			}
		}
	}
	return nil
}

// receive looks at what has come.
func (g *generator) receive() error {
	rx := g.port.RX(0)
	for ; !rx.Empty(); rx.Head = rx.Next(rx.Head) {
		s := rx.Slot(rx.Head)
		frame := rx.Buf(s)[:s.Len]
		i, body, ok := g.answer(frame, len(g.clients))
		if !ok {
			if reply, asked := g.arp(frame); asked {
				if err := g.put(func(b []byte) int { return copy(b, reply) }); err != nil {
					return err
				}
			}
			continue
		}
		if g.accept(&g.clients[i], body) {
			g.resting = append(g.resting, i)
			if err := g.turn(); err != nil {
				return err
			}
		}
	}
	rx.Cur = rx.Head
	return nil
}

// accept says whether an answer is the one that its client waits for.
func (g *generator) accept(c *client, body []byte) bool {
	want := g.Size
	if g.Workload == loadgen.Sink {
		want = AnswerSize
	}
	if len(body) != want || !c.waiting || binary.BigEndian.Uint64(body) != c.n {
		return false
	}
	done := uint64(1)
	if g.Workload == loadgen.Sink {
		n := binary.BigEndian.Uint64(body[idSize:])
		done = n - min(g.counted, n)
		g.counted = max(g.counted, n)
	}
	c.waiting = false
	g.res.Acked += done
	g.Live.Requests.Add(done)
	if g.begun {
		g.res.Requests += done
		if g.Workload == loadgen.Echo {
			_ = g.res.Latency.RecordValue(g.now - c.sent)
		}
	}
	return true
}

// burst is how many datagrams are one request.
func (g *generator) burst() int {
	if g.Workload == loadgen.Sink {
		return Burst
	}
	return 1
}

// turn has the client that has waited longest send.
func (g *generator) turn() error {
	i := g.resting[0]
	g.resting = append(g.resting[:0], g.resting[1:]...)
	return g.next(i)
}

// next sends what a client sends next.
func (g *generator) next(i int) error {
	c := &g.clients[i]
	c.sent, c.waiting = g.now, true
	for left := g.burst(); left > 0; left-- {
		c.n++
		flags := byte(0)
		if left == 1 {
			flags = WantAnswer
		}
		err := g.put(func(b []byte) int {
			copy(b, g.template[:payload]) // the rest is there: an answer to ARP is no longer
			complete(b, g.sum, firstPort+uint16(i), c.n, flags)
			return len(g.template)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// again sends what was lost.
func (g *generator) again() error {
	for i := range g.clients {
		if c := &g.clients[i]; c.waiting && g.now-c.sent > lost {
			if g.begun {
				g.res.Errors++
			}
			if err := g.next(i); err != nil {
				return err
			}
		}
	}
	return nil
}

// put queues a frame.
func (g *generator) put(fill func(b []byte) int) error {
	tx := g.port.TX(0)
	for tx.Empty() {
		if err := g.port.TxSync(); err != nil {
			return err
		}
	}
	s := tx.Slot(tx.Head)
	s.Len = uint16(fill(tx.Buf(s)))
	tx.Head = tx.Next(tx.Head)
	tx.Cur = tx.Head
	if g.queued++; g.queued >= pushAfter {
		g.queued = 0
		return g.port.TxSync()
	}
	return nil
}

// tick opens the window when it is time, and says whether the run goes on: until there
// was an answer, too, as a machine may stand still for longer than the window.
func (g *generator) tick() bool {
	if !g.begun && g.now >= g.from {
		g.begun = true
		g.from, g.to = g.now, g.now+int64(g.Duration)
		if g.OnWindow != nil {
			g.OnWindow(true)
		}
	}
	to := g.to
	if g.res.Requests == 0 {
		to += int64(patience)
	}
	return g.now < to && !g.stop.Load()
}

func (g *generator) finish() {
	if g.begun {
		if g.OnWindow != nil {
			g.OnWindow(false)
		}
		g.res.Elapsed = time.Duration(g.now - g.from)
	}
}

func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}
