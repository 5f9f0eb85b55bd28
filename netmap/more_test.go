package netmap_test

import (
	"context"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/internal/testwait"
	"github.com/pastenet/paste/netmap"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestMoreFrag has frames that are larger than a buffer in several slots, both ways.
func TestMoreFrag(t *testing.T) {
	l := netlabtest.New(t, netlab.Config{Prefix: "nm", MTU: 9000, Quiet: true})
	a := openIn(t, l.Server, "netmap:"+l.ServerDev, netmap.Options{})
	b := openIn(t, l.Client, "netmap:"+l.ClientDev, netmap.Options{})
	for i, size := range []int{60, 1792, 1793, 3000, 9014} {
		for _, piece := range []int{1792, 700} {
			if size/piece > 16 {
				continue
			}
			f := frame(i, size)
			qt.Assert(t, qt.IsTrue(put(t, a.TX(0), f, piece)))
			qt.Assert(t, qt.IsNil(a.TxSync()))
			var got [][]byte
			var slots []int
			testwait.Until(t, "a frame", func() bool {
				_, err := b.Poll(netmap.In, 100*time.Millisecond)
				qt.Assert(t, qt.IsNil(err))
				got, slots = take(t, b.RX(0))
				return len(got) > 0
			})
			same(t, got, [][]byte{f})
			qt.Check(t, qt.Equals(slots[0], (size+1791)/1792), qt.Commentf("%d bytes", size))
		}
	}
}

// TestGeneric receives where the driver's XDP is not used.
func TestGeneric(t *testing.T) {
	l := newLab(t, 1)
	a := openIn(t, l.Server, "netmap:"+l.ServerDev, netmap.Options{XDPMode: bpf.ModeGeneric})
	b := openIn(t, l.Client, "netmap:"+l.ClientDev, netmap.Options{XDPMode: bpf.ModeGeneric})
	mode, _ := b.Mode()
	qt.Check(t, qt.Equals(mode, bpf.ModeGeneric))
	put(t, a.TX(0), frame(5, 1514), 1514)
	qt.Assert(t, qt.IsNil(a.TxSync()))
	same(t, recv(t, b, 1), [][]byte{frame(5, 1514)})
	_, err := tryOpen(t, l.Client, "netmap:"+l.ClientDev+"^", netmap.Options{})
	qt.Check(t, qt.IsTrue(isUnsupported(err)), qt.Commentf("%v", err))
}

// TestQueues has each queue and each direction with a port of its own, one thread each.
func TestQueues(t *testing.T) {
	l := newLab(t, 2)
	name := "netmap:" + l.ServerDev
	q0r := openIn(t, l.Server, name+"-0/R", netmap.Options{})
	q0t := openIn(t, l.Server, name+"-0/T", netmap.Options{})
	q1 := openIn(t, l.Server, name+"-1/x", netmap.Options{})
	qt.Check(t, qt.Equals(q0r.NumTX(), 0))
	qt.Check(t, qt.Equals(q0t.NumRX(), 0))
	qt.Check(t, qt.Equals(q1.RX(0).RingID, uint16(1)))
	for _, n := range []string{"", "-0", "-0/R", "-1/T"} {
		_, err := tryOpen(t, l.Server, name+n, netmap.Options{})
		qt.Check(t, qt.ErrorIs(err, netmap.ErrBusy), qt.Commentf("%s", n))
	}
	other := openIn(t, l.Client, "netmap:"+l.ClientDev, netmap.Options{})
	qt.Assert(t, qt.Equals(other.NumTX(), 2))

	done := make(chan int, 2)
	for _, p := range []*netmap.Port{q0t, q1} {
		go func() {
			sent := 0
			for sent < 2000 {
				for sent < 2000 && put(t, p.TX(0), frame(sent, 60), 60) {
					sent++
				}
				if _, err := p.Poll(netmap.Out, -1); err != nil {
					break
				}
			}
			done <- sent
		}()
	}
	got := 0
	testwait.Until(t, "all frames, but for those that were dropped", func() bool {
		_, err := other.Poll(netmap.In, 50*time.Millisecond)
		qt.Assert(t, qt.IsNil(err))
		for i := range other.NumRX() {
			f, _ := take(t, other.RX(i))
			got += len(f)
		}
		qt.Assert(t, qt.IsNil(other.RxSync()))
		st, err := other.Stats()
		qt.Assert(t, qt.IsNil(err))
		return uint64(got)+st.RX[0].Dropped()+st.RX[1].Dropped() >= 4000 || got >= 3000
	})
	qt.Check(t, qt.Equals(<-done, 2000))
	qt.Check(t, qt.Equals(<-done, 2000))

	// And back: which queue a frame comes in at is the veth's choice.
	put(t, other.TX(0), frame(1, 60), 60)
	put(t, other.TX(1), frame(2, 60), 60)
	qt.Assert(t, qt.IsNil(other.TxSync()))
	seen := map[int]bool{}
	testwait.Until(t, "both frames", func() bool {
		for _, p := range []*netmap.Port{q0r, q1} {
			_, err := p.Poll(netmap.In, 10*time.Millisecond)
			qt.Assert(t, qt.IsNil(err))
			f, _ := take(t, p.RX(0))
			for _, f := range f {
				seen[number(f)] = true
			}
		}
		return len(seen) == 2
	})
}

// TestZeroCopyBetweenPorts forwards by exchanging buffers: what one NIC received the
// other sends from the same place.
func TestZeroCopyBetweenPorts(t *testing.T) {
	l1, l2 := newLab(t, 1), newLab(t, 1)
	m := newMemory(t, netmap.MemoryOptions{Buffers: 4096})
	src := openIn(t, l1.Client, "netmap:"+l1.ClientDev, netmap.Options{Slots: 64})
	in := openIn(t, l1.Server, "netmap:"+l1.ServerDev, netmap.Options{Memory: m, Slots: 64})
	out := openIn(t, l2.Server, "netmap:"+l2.ServerDev, netmap.Options{Memory: m, Slots: 64})
	dst := openIn(t, l2.Client, "netmap:"+l2.ClientDev, netmap.Options{Slots: 64})
	sent, got := 0, 0
	testwait.Until(t, "500 frames through", func() bool {
		for sent-got < 40 && sent < 500 && put(t, src.TX(0), frame(sent, 60+sent), 1700) {
			sent++
		}
		qt.Assert(t, qt.IsNil(src.TxSync()))
		qt.Assert(t, qt.IsNil(in.RxSync()))
		rx, tx := in.RX(0), out.TX(0)
		for !rx.Empty() && !tx.Empty() {
			rs, ts := rx.Slot(rx.Head), tx.Slot(tx.Head)
			before := &rx.Buf(rs)[0]
			rs.BufIdx, ts.BufIdx = ts.BufIdx, rs.BufIdx
			ts.Len, ts.Flags, rs.Flags = rs.Len, netmap.NS_BUF_CHANGED, netmap.NS_BUF_CHANGED
			qt.Assert(t, qt.Equals(&tx.Buf(ts)[0], before))
			rx.Head, tx.Head = rx.Next(rx.Head), tx.Next(tx.Head)
		}
		rx.Cur, tx.Cur = rx.Head, tx.Head
		qt.Assert(t, qt.IsNil(out.TxSync()))
		qt.Assert(t, qt.IsNil(in.RxSync()))
		_, err := dst.Poll(netmap.In, 5*time.Millisecond)
		qt.Assert(t, qt.IsNil(err))
		frames, _ := take(t, dst.RX(0))
		qt.Assert(t, qt.IsNil(dst.RxSync()))
		for _, f := range frames {
			same(t, f, frame(got, 60+got))
			got++
		}
		return got == 500
	})
	for _, p := range []*netmap.Port{src, in, out, dst} {
		qt.Assert(t, qt.IsNil(p.Close()))
	}
	// Every buffer is back.
	all := make([]uint32, 4096)
	qt.Check(t, qt.Equals(m.Alloc(all), 4094))
	seen := map[uint32]bool{}
	for _, b := range all[:4094] {
		qt.Assert(t, qt.IsFalse(seen[b]))
		seen[b] = true
	}
}

// TestFd has the descriptor readable while frames wait, in the kernel or in slots.
func TestFd(t *testing.T) {
	l := newLab(t, 1)
	a := openIn(t, l.Server, "netmap:"+l.ServerDev, netmap.Options{})
	b := openIn(t, l.Client, "netmap:"+l.ClientDev, netmap.Options{})
	readable := func(ms int) bool {
		fds := []unix.PollFd{{Fd: int32(b.Fd()), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, ms)
		return err == nil && fds[0].Revents&unix.POLLIN != 0
	}
	qt.Check(t, qt.IsFalse(readable(0)))
	for i := range 3 {
		put(t, a.TX(0), frame(i, 60), 60)
	}
	qt.Assert(t, qt.IsNil(a.TxSync()))
	testwait.Until(t, "the descriptor", func() bool { return readable(100) })
	testwait.Until(t, "all frames", func() bool { qt.Assert(t, qt.IsNil(b.RxSync())); return b.RX(0).Space() == 3 })
	qt.Check(t, qt.IsTrue(readable(0)), qt.Commentf("slots wait"))
	// Cur says that the program has looked at them, Head that it is done.
	b.RX(0).Cur = b.RX(0).Tail
	qt.Assert(t, qt.IsNil(b.RxSync()))
	qt.Check(t, qt.IsFalse(readable(0)))
	qt.Check(t, qt.Equals(b.RX(0).Space(), uint32(3)))
	got, err := b.Poll(netmap.In, time.Millisecond)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(got, netmap.Events(0)))
	put(t, a.TX(0), frame(9, 60), 60)
	qt.Assert(t, qt.IsNil(a.TxSync()))
	got, err = b.Poll(netmap.In, -1)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(got, netmap.In))
}

// TestWake ends a Poll that would wait for ever.
func TestWake(t *testing.T) {
	l := newLab(t, 1)
	p := openIn(t, l.Server, "netmap:"+l.ServerDev, netmap.Options{})
	stop := context.AfterFunc(t.Context(), p.Wake)
	defer stop()
	go func() { time.Sleep(10 * time.Millisecond); p.Wake() }()
	got, err := p.Poll(netmap.In, -1)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(got, netmap.Events(0)))
}

// TestNICGone has the program told when the NIC goes.
func TestNICGone(t *testing.T) {
	l := newLab(t, 1)
	p := openIn(t, l.Server, "netmap:"+l.ServerDev, netmap.Options{})
	netlabtest.In(t, l.Client, func() {
		link, err := netlink.LinkByName(l.ClientDev)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(netlink.LinkDel(link)))
	})
	testwait.Until(t, "the error", func() bool {
		_, err := p.Poll(netmap.In, 100*time.Millisecond)
		if err != nil {
			qt.Assert(t, qt.ErrorIs(err, netmap.ErrDown))
		}
		return err != nil
	})
}
