package netmap_test

import (
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/internal/testwait"
	"github.com/pastenet/paste/netmap"
	"github.com/vishvananda/netlink"
)

// attachTo opens a port and gives it to a switch, which closes it.
func attachTo(t testing.TB, s *netmap.Switch, ns *netlab.Netns, name string, o netmap.Options) {
	t.Helper()
	open := func() {
		p, err := netmap.Open(context.Background(), name, o)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(s.Attach(p)))
	}
	if ns == nil {
		open()
		return
	}
	netlabtest.In(t, ns, open)
}

// side is a namespace with an address, behind a veth whose other end is a switch's.
type side struct {
	lab *netlab.Lab
	ip  string
}

func newSide(t testing.TB, ip string) side {
	t.Helper()
	l := netlabtest.New(t, netlab.Config{Prefix: "nm", Quiet: true, NoTxChecksum: true})
	netlabtest.In(t, l.Client, func() {
		link, err := netlink.LinkByName(l.ClientDev)
		qt.Assert(t, qt.IsNil(err))
		addr, err := netlink.ParseAddr(ip + "/24")
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(netlink.AddrAdd(link, addr)))
	})
	return side{l, ip}
}

// transfer sends bytes from one namespace to the other by TCP.
func transfer(t testing.TB, from, to side, size int) {
	t.Helper()
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(data)
	var lis net.Listener
	netlabtest.In(t, to.lab.Client, func() {
		var err error
		lis, err = net.Listen("tcp", to.ip+":0")
		qt.Assert(t, qt.IsNil(err))
	})
	defer lis.Close()
	sum := make(chan [32]byte, 1)
	go func() {
		c, err := lis.Accept()
		if err != nil {
			close(sum)
			return
		}
		defer c.Close()
		got, _ := io.ReadAll(c)
		sum <- sha256.Sum256(got)
	}()
	var c net.Conn
	netlabtest.In(t, from.lab.Client, func() {
		var err error
		c, err = net.Dial("tcp", lis.Addr().String())
		qt.Assert(t, qt.IsNil(err))
	})
	_, err := c.Write(data)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(c.Close()))
	qt.Check(t, qt.Equals(<-sum, sha256.Sum256(data)))
}

func runSwitch(t testing.TB, s *netmap.Switch) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		qt.Check(t, qt.IsNil(<-done))
		qt.Check(t, qt.IsNil(s.Close()))
	})
}

// TestSwitch has three NICs and a program's port on a switch: TCP passes, and after a
// frame of each the switch knows who is where.
func TestSwitch(t *testing.T) {
	own := newMemory(t, netmap.MemoryOptions{Buffers: 8192})
	a, b, c := newSide(t, "10.9.0.1"), newSide(t, "10.9.0.2"), newSide(t, "10.9.0.3")
	s, err := netmap.NewSwitch(netmap.SwitchOptions{})
	qt.Assert(t, qt.IsNil(err))
	attachTo(t, s, a.lab.Server, "netmap:"+a.lab.ServerDev, netmap.Options{})
	runSwitch(t, s)
	attachTo(t, s, b.lab.Server, "netmap:"+b.lab.ServerDev, netmap.Options{})
	// With a memory of its own: its frames are copied.
	attachTo(t, s, c.lab.Server, "netmap:"+c.lab.ServerDev, netmap.Options{Memory: own})
	watcher := openIn(t, nil, "netmap:w{1", netmap.Options{})
	attachTo(t, s, nil, "netmap:w}1", netmap.Options{})
	qt.Check(t, qt.ErrorIs(s.Attach(watcher), netmap.ErrBusy), qt.Commentf("a loop"))

	transfer(t, a, b, 4<<20)
	transfer(t, b, c, 2<<20)
	transfer(t, c, a, 2<<20)
	st := s.Stats()
	qt.Assert(t, qt.HasLen(st, 4))
	// The watcher has seen broadcast (ARP) and nothing of the transfers.
	for deadline := 0; deadline < 50 && st[3].Out == 0; deadline++ {
		st = s.Stats()
	}
	qt.Check(t, qt.IsTrue(st[3].Out >= 3 && st[3].Out < 100), qt.Commentf("%+v", st))
	qt.Check(t, qt.IsTrue(st[0].In > 1000 && st[1].In > 1000), qt.Commentf("%+v", st))

	// What the watcher sends to a known address goes there alone.
	f := frame(1, 60)
	copy(f, []byte{2, 1, 1, 1, 1, 1})
	copy(f[6:], []byte{2, 9, 9, 9, 9, 9})
	before := s.Stats()
	put(t, watcher.TX(0), f, 60)
	qt.Assert(t, qt.IsNil(watcher.TxSync()))
	testwait.Until(t, "an unknown address at all ports", func() bool { return s.Stats()[3].In == before[3].In+1 })
	testwait.Until(t, "an unknown address at all ports", func() bool {
		now := s.Stats()
		return now[0].Out > before[0].Out && now[1].Out > before[1].Out && now[2].Out > before[2].Out
	})
}

// TestVale has switches with names: a frame finds the port where its destination sends
// from, and never comes back.
func TestVale(t *testing.T) {
	m := newMemory(t, netmap.MemoryOptions{Buffers: 4096})
	var ports []*netmap.Port
	for _, n := range []string{"a", "b", "c"} {
		ports = append(ports, openIn(t, nil, "vale7:"+n, netmap.Options{Slots: 64, Memory: m}))
	}
	_, err := tryOpen(t, nil, "vale7:a", netmap.Options{Memory: m})
	qt.Check(t, qt.ErrorIs(err, netmap.ErrBusy))
	qt.Check(t, qt.DeepEquals(netmap.ValeList(), []string{"vale7:a", "vale7:b", "vale7:c"}))
	send := func(from int, to byte, n int) {
		f := frame(n, 64)
		copy(f, []byte{2, 0, 0, 0, 0, to})
		f[11] = byte(from)
		put(t, ports[from].TX(0), f, 64)
		qt.Assert(t, qt.IsNil(ports[from].TxSync()))
	}
	got := func(p int) (n []int) {
		for _, f := range recv(t, ports[p], 1) {
			n = append(n, number(f))
		}
		return n
	}
	send(0, 1, 100) // nobody knows 1 yet: to all others
	qt.Check(t, qt.DeepEquals(got(1), []int{100}))
	qt.Check(t, qt.DeepEquals(got(2), []int{100}))
	send(1, 0, 101) // 0 was seen at a
	qt.Check(t, qt.DeepEquals(got(0), []int{101}))
	send(0, 1, 102)
	send(2, 2, 103) // to itself: nowhere
	send(2, 1, 104)
	var at1 []int
	testwait.Until(t, "both", func() bool { at1 = append(at1, got(1)...); return len(at1) == 2 })
	slices.Sort(at1)
	qt.Check(t, qt.DeepEquals(at1, []int{102, 104}))
	for _, p := range []int{0, 2} {
		_, err := ports[p].Poll(netmap.In, 20*time.Millisecond)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsTrue(ports[p].RX(0).Empty()))
	}

	// A NIC joins, and the far kernel answers through the switch.
	far := newSide(t, "10.9.0.9")
	name := "vale7:" + far.lab.ServerDev
	netlabtest.In(t, far.lab.Server, func() {
		qt.Assert(t, qt.IsNil(netmap.ValeAttach(context.Background(), name, netmap.Options{Memory: m})))
	})
	send(0, 77, 105)
	testwait.Until(t, "the frame at the far end", func() bool {
		var rx uint64
		netlabtest.In(t, far.lab.Client, func() {
			l, err := netlink.LinkByName(far.lab.ClientDev)
			qt.Assert(t, qt.IsNil(err))
			rx = l.Attrs().Statistics.RxPackets
		})
		return rx > 0
	})
	qt.Check(t, qt.IsNil(netmap.ValeDetach(name)))
	qt.Check(t, qt.IsNotNil(netmap.ValeDetach(name)))
	for _, p := range ports {
		qt.Check(t, qt.IsNil(p.Close()))
	}
	qt.Check(t, qt.HasLen(netmap.ValeList(), 0))
	all := make([]uint32, 4096)
	qt.Check(t, qt.Equals(m.Alloc(all), 4094))
	m.Free(all[:4094])
}

// TestSwitchFullRing goes on with a port whose TX ring was full, once its frames are
// sent.
func TestSwitchFullRing(t *testing.T) {
	in := newLab(t, 1)
	// Where a thread of its own receives, frames are not sent as soon as they are handed
	// over.
	out := netlabtest.New(t, netlab.Config{Prefix: "nm", Quiet: true, Pin: &netlab.Pin{ClientCPU: 1}})
	src := openIn(t, in.Client, "netmap:"+in.ClientDev, netmap.Options{Slots: 512})
	s, err := netmap.NewSwitch(netmap.SwitchOptions{})
	qt.Assert(t, qt.IsNil(err))
	for _, end := range []struct {
		l     *netlab.Lab
		slots int
	}{{in, 512}, {out, 64}} {
		attachTo(t, s, end.l.Server, "netmap:"+end.l.ServerDev, netmap.Options{Slots: end.slots})
	}
	// Before the switch runs: it finds all of them at once.
	for i := range 200 {
		put(t, src.TX(0), frame(i, 60), 60)
	}
	qt.Assert(t, qt.IsNil(src.TxSync()))
	runSwitch(t, s)
	testwait.Until(t, "the frames to have come", func() bool { st := s.Stats(); return st[1].Out+st[1].Dropped >= 200 })
	sent := s.Stats()[1].Out
	testwait.Until(t, "further frames", func() bool {
		put(t, src.TX(0), frame(1, 60), 60)
		qt.Assert(t, qt.IsNil(src.TxSync()))
		return s.Stats()[1].Out > sent+100
	})
}
