package netmap_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/asavie/xdp"
	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What asavie/xdp does in the benchmarks, as its examples do it.

func asavieOptions() *xdp.SocketOptions {
	return &xdp.SocketOptions{NumFrames: 4096, FrameSize: 2048, FillRingNumDescs: 2048, CompletionRingNumDescs: 2048, RxRingNumDescs: 2048, TxRingNumDescs: 2048}
}

func openAsavie(b *testing.B, ns *netlab.Netns, dev string) (s *xdp.Socket) {
	b.Helper()
	netlabtest.In(b, ns, func() {
		l, err := netlink.LinkByName(dev)
		qt.Assert(b, qt.IsNil(err))
		// The kernel frees a queue some time after its socket was closed.
		for range 1000 {
			if s, err = xdp.NewSocket(l.Attrs().Index, 0, asavieOptions()); err == nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		b.Fatal(err)
	})
	return s
}

// steerAsavie attaches asavie/xdp's program.
func steerAsavie(b *testing.B, ns *netlab.Netns, dev string, s *xdp.Socket) (detach func()) {
	b.Helper()
	p, err := xdp.NewProgram(1)
	qt.Assert(b, qt.IsNil(err))
	index := 0
	netlabtest.In(b, ns, func() {
		l, err := netlink.LinkByName(dev)
		qt.Assert(b, qt.IsNil(err))
		index = l.Attrs().Index
		qt.Assert(b, qt.IsNil(p.Attach(index)))
	})
	qt.Assert(b, qt.IsNil(p.Register(0, s.FD())))
	return func() {
		netlabtest.In(b, ns, func() { _ = p.Detach(index) })
		p.Close()
	}
}

func sendAsavie(s *xdp.Socket) worker {
	return func(stop *atomic.Bool, count *atomic.Uint64) {
		for _, d := range s.GetDescs(1 << 20) {
			copy(s.GetFrame(d), frame(1, benchSize))
		}
		for !stop.Load() {
			descs := s.GetDescs(s.NumFreeTxSlots())
			for i := range descs {
				descs[i].Len = benchSize
			}
			count.Add(uint64(s.Transmit(descs)))
			if _, _, err := s.Poll(10); err != nil {
				panic(err)
			}
		}
	}
}

func recvAsavie(s *xdp.Socket) worker {
	return func(stop *atomic.Bool, count *atomic.Uint64) {
		for !stop.Load() {
			s.Fill(s.GetDescs(s.NumFreeFillSlots()))
			got, _, err := s.Poll(10)
			if err != nil {
				panic(err)
			}
			n := uint64(0)
			for _, d := range s.Receive(got) {
				n += uint64(s.GetFrame(d)[0]) / 0xff
			}
			count.Add(n)
		}
	}
}

func bridgeAsavie(in, out *xdp.Socket) worker {
	return func(stop *atomic.Bool, count *atomic.Uint64) {
		fds := []unix.PollFd{{Fd: int32(in.FD()), Events: unix.POLLIN}, {Fd: int32(out.FD())}}
		for !stop.Load() {
			in.Fill(in.GetDescs(in.NumFreeFillSlots()))
			fds[1].Events = 0
			if out.NumTransmitted() > 0 {
				fds[1].Events = unix.POLLOUT
			}
			if _, err := unix.Poll(fds, 10); err != nil && err != unix.EINTR {
				panic(err)
			}
			from := in.Receive(in.NumReceived())
			to := out.GetDescs(out.NumFreeTxSlots())
			n := min(len(from), len(to))
			for i := range n {
				to[i].Len = uint32(copy(out.GetFrame(to[i]), in.GetFrame(from[i])))
			}
			if n > 0 {
				out.Transmit(to[:n])
			}
			if k := out.NumCompleted(); k > 0 {
				out.Complete(k)
				count.Add(uint64(k))
			}
		}
	}
}
