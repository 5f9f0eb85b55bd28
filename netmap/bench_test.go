package netmap_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/netmap"
	"golang.org/x/sys/unix"
)

// Raw ports beside asavie/xdp, on a veth with frames of 60 bytes, one CPU for each
// side with its receive processing:
//
//	go test -run - -bench . -benchtime 5x ./netmap
//
// Each iteration is a round in which both are measured, one after the other. Reported
// are the medians: frames per second of each, and of the rounds' quotients.

const (
	benchRound = 1500 * time.Millisecond
	nearCPU    = 0 // of what is measured
	farCPU     = 1 // of what sends to it, or receives from it
	benchSize  = 60
)

func benchLab(b *testing.B) *netlab.Lab {
	return netlabtest.New(b, netlab.Config{Prefix: "nm", Quiet: true, Pin: &netlab.Pin{ServerCPU: nearCPU, ClientCPU: farCPU}})
}

// onCPU runs f on a thread of its own that is bound to a CPU.
func onCPU(cpu int, f func()) (wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread goes with the goroutine
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			panic(err)
		}
		f()
	}()
	return func() { <-done }
}

// worker does frames until stop, and counts them.
type worker func(stop *atomic.Bool, count *atomic.Uint64)

// rate runs a worker on the near CPU, and another one, or none, on the far CPU.
func rate(near, far worker) float64 {
	var stop atomic.Bool
	var n, other atomic.Uint64
	var waits []func()
	if far != nil {
		waits = append(waits, onCPU(farCPU, func() { far(&stop, &other) }))
	}
	waits = append(waits, onCPU(nearCPU, func() { near(&stop, &n) }))
	time.Sleep(200 * time.Millisecond)
	before, begin := n.Load(), time.Now()
	time.Sleep(benchRound)
	got, took := n.Load()-before, time.Since(begin)
	stop.Store(true)
	for _, wait := range waits {
		wait()
	}
	return float64(got) / took.Seconds()
}

// compare reports rounds of two measurements.
func compare(b *testing.B, ours, theirs func() float64) {
	var a, c, q []float64
	for range b.N {
		x, y := ours(), theirs()
		a, c, q = append(a, x), append(c, y), append(q, x/y)
	}
	for unit, list := range map[string][]float64{"netmap-pps": a, "asavie-pps": c, "quotient": q} {
		slices.Sort(list)
		b.ReportMetric(list[len(list)/2], unit)
	}
	b.ReportMetric(0, "ns/op")
}

// sendNetmap sends by a port, as netmap's generator does: the buffers are filled once.
func sendNetmap(p *netmap.Port) worker {
	return func(stop *atomic.Bool, count *atomic.Uint64) {
		tx := p.TX(0)
		for i := range tx.NumSlots {
			copy(tx.Buf(tx.Slot(i)), frame(1, benchSize))
		}
		for !stop.Load() {
			n := min(tx.Space(), 512)
			for i, k := tx.Head, n; k > 0; k-- {
				tx.Slot(i).Len = benchSize
				i = tx.Next(i)
				tx.Head, tx.Cur = i, i
			}
			if err := p.TxSync(); err != nil {
				panic(err)
			}
			count.Add(uint64(n))
		}
	}
}

func recvNetmap(p *netmap.Port) worker {
	return func(stop *atomic.Bool, count *atomic.Uint64) {
		rx := p.RX(0)
		for !stop.Load() {
			if _, err := p.Poll(netmap.In, 10*time.Millisecond); err != nil {
				panic(err)
			}
			n := uint64(0)
			for ; rx.Head != rx.Tail; rx.Head = rx.Next(rx.Head) {
				n += uint64(rx.Buf(rx.Slot(rx.Head))[0]) / 0xff // looks at the frame
			}
			rx.Cur = rx.Head
			count.Add(n)
		}
	}
}

func benchOpen(b *testing.B, ns *netlab.Netns, name string, m *netmap.Memory) (p *netmap.Port) {
	b.Helper()
	var err error
	netlabtest.In(b, ns, func() {
		p, err = netmap.Open(context.Background(), name, netmap.Options{Slots: 2048, Memory: m})
	})
	qt.Assert(b, qt.IsNil(err))
	return p
}

// Every measurement has a network of its own: asavie/xdp does not give a queue back
// as long as its process lives.

func BenchmarkSend(b *testing.B) {
	compare(b, func() float64 {
		l := benchLab(b)
		defer l.Close()
		p := benchOpen(b, l.Server, "netmap:"+l.ServerDev+"/T", nil)
		defer p.Close()
		return rate(sendNetmap(p), nil)
	}, func() float64 {
		l := benchLab(b)
		defer l.Close()
		s := openAsavie(b, l.Server, l.ServerDev)
		defer s.Close()
		return rate(sendAsavie(s), nil)
	})
}

func BenchmarkReceive(b *testing.B) {
	compare(b, func() float64 {
		l := benchLab(b)
		defer l.Close()
		gen := benchOpen(b, l.Client, "netmap:"+l.ClientDev+"/T", nil)
		defer gen.Close()
		p := benchOpen(b, l.Server, "netmap:"+l.ServerDev+"/R", nil)
		defer p.Close()
		return rate(recvNetmap(p), sendNetmap(gen))
	}, func() float64 {
		l := benchLab(b)
		defer l.Close()
		gen := benchOpen(b, l.Client, "netmap:"+l.ClientDev+"/T", nil)
		defer gen.Close()
		s := openAsavie(b, l.Server, l.ServerDev)
		defer s.Close()
		defer steerAsavie(b, l.Server, l.ServerDev, s)()
		return rate(recvAsavie(s), sendNetmap(gen))
	})
}

// BenchmarkBridge forwards from one veth to another: by exchange of buffers here, by
// copying there, as its example does; and by a Switch against the same.
func BenchmarkBridge(b *testing.B) { benchBridge(b, bridgeNetmap) }

// BenchmarkSwitch is BenchmarkBridge with a Switch in the bridge's place.
func BenchmarkSwitch(b *testing.B) { benchBridge(b, switchNetmap) }

func benchBridge(b *testing.B, ours func(from, to *netmap.Port) worker) {
	compare(b, func() float64 {
		in, out := benchLab(b), benchLab(b)
		defer in.Close()
		defer out.Close()
		gen := benchOpen(b, in.Client, "netmap:"+in.ClientDev+"/T", nil)
		defer gen.Close()
		m := newMemory(b, netmap.MemoryOptions{Buffers: 16384})
		p, q := benchOpen(b, in.Server, "netmap:"+in.ServerDev, m), benchOpen(b, out.Server, "netmap:"+out.ServerDev, m)
		defer p.Close()
		defer q.Close()
		return rate(ours(p, q), sendNetmap(gen))
	}, func() float64 {
		in, out := benchLab(b), benchLab(b)
		defer in.Close()
		defer out.Close()
		gen := benchOpen(b, in.Client, "netmap:"+in.ClientDev+"/T", nil)
		defer gen.Close()
		s, q := openAsavie(b, in.Server, in.ServerDev), openAsavie(b, out.Server, out.ServerDev)
		defer s.Close()
		defer q.Close()
		defer steerAsavie(b, in.Server, in.ServerDev, s)()
		return rate(bridgeAsavie(s, q), sendNetmap(gen))
	})
}

func switchNetmap(from, to *netmap.Port) worker {
	return func(stop *atomic.Bool, count *atomic.Uint64) {
		s, err := netmap.NewSwitch(netmap.SwitchOptions{})
		if err != nil {
			panic(err)
		}
		defer s.Close()
		for _, p := range []*netmap.Port{from, to} {
			if err := s.Attach(p); err != nil {
				panic(err)
			}
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() {
			for !stop.Load() {
				time.Sleep(10 * time.Millisecond)
				count.Store(s.Stats()[1].Out)
			}
			cancel()
		}()
		if err := s.Run(ctx); err != nil {
			panic(err)
		}
	}
}

func bridgeNetmap(from, to *netmap.Port) worker {
	return func(stop *atomic.Bool, count *atomic.Uint64) {
		for !stop.Load() {
			if _, err := from.Poll(netmap.In, 10*time.Millisecond); err != nil {
				panic(err)
			}
			count.Add(uint64(forward(from.RX(0), to.TX(0))))
			if err := to.TxSync(); err != nil {
				panic(fmt.Sprint("send: ", err))
			}
		}
	}
}
