package tests

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// countRules count what comes in for port 8080 on the NIC and on other interfaces.
const countRules = `table inet lab {
	counter nic { }
	counter other { }
	chain i { type filter hook input priority 0;
		iifname "%[1]s" tcp dport 8080 counter name nic
		iifname != "%[1]s" tcp dport 8080 counter name other
	}
}`

const uploadSize = 8 << 20

// upload posts and expects the payload to have come by the rings in place, for
// the most part, and all of it on the NIC.
func upload(t *testing.T, l *netlab.Lab, s *server, addr string) {
	t.Helper()
	nft(t, l, fmt.Sprintf(countRules, l.ServerDev))
	_, err := post(newClient(t, l), "http://"+addr, random(uploadSize, 1))
	qt.Assert(t, qt.IsNil(err))
	st := s.status(l)
	qt.Check(t, qt.Equals(st.Injected, "nic"))
	qt.Check(t, qt.IsTrue(st.Stats.SteeredBytes > uploadSize/2), qt.Commentf("%+v", st))
	got := counted(t, l, "lab", "nic")
	qt.Check(t, qt.IsTrue(got > uploadSize), qt.Commentf("%d bytes on the NIC of %d", got, uploadSize))
	qt.Check(t, qt.Equals(counted(t, l, "lab", "other"), 0))
}

// Received payload is to the rules of a firewall what it is: received on the NIC.
func TestPayloadComesInOnTheNIC(t *testing.T) {
	for _, mode := range []string{"native", "generic"} {
		for _, queues := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, %d queues", mode, queues), func(t *testing.T) {
				// Generic mode sees what a veth's sender has left uncut.
				l := newLab(t, netlab.Config{Queues: queues, Pin: &netlab.Pin{}})
				s := serve(t, l, poolFile(t), "--xdp-mode", mode, "--copybreak", "-1")
				upload(t, l, s, s.addr)
				s.stop()
			})
		}
	}
	t.Run("IPv6", func(t *testing.T) {
		l := newLab(t, netlab.Config{})
		s := serve(t, l, poolFile(t), "--listen", net.JoinHostPort(l.ServerIP6.String(), "8080"))
		upload(t, l, s, s.addr)
		s.stop()
	})
	t.Run("attached by pastectl", func(t *testing.T) {
		l := newLab(t, netlab.Config{})
		usePrivateBPFFS(t)
		_, stderr, err := ctl(l, "attach", l.ServerDev)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", stderr))
		s := serve(t, l, poolFile(t))
		upload(t, l, s, s.addr)
		s.stop()
		_, stderr, err = ctl(l, "detach", l.ServerDev)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", stderr))
		qt.Check(t, qt.Equals(ingressPrograms(t, l), 0))
	})
}

// ingressPrograms is how many programs are at the ingress of the server's NIC.
func ingressPrograms(t testing.TB, l *netlab.Lab) (n int) {
	t.Helper()
	qt.Assert(t, qt.IsNil(l.InServer(func() error {
		dev, err := netlink.LinkByName(l.ServerDev)
		if err != nil {
			return err
		}
		r, err := link.QueryPrograms(link.QueryOptions{Target: dev.Attrs().Index, Attach: ebpf.AttachTCXIngress})
		if err == nil {
			n = len(r.Programs)
		}
		return err
	})))
	return n
}

// A rule that drops what comes in on the NIC ends a running upload, wherever it
// stands, as it does that to an ordinary server.
func TestDropRuleEndsAnUpload(t *testing.T) {
	for name, rules := range map[string]string{
		"input": `table inet lab {
			chain i {
				type filter hook input priority 0
				iifname "%[1]s" tcp dport 7000 drop
			}
		}`,
		"ingress": `table netdev lab {
			chain i {
				type filter hook ingress device "%[1]s" priority 0
				tcp dport 7000 drop
			}
		}`,
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, netlab.Config{})
			a := startEchoCopybreak(t, l, -1)
			c := dial(t, l, a.Addr)
			// What fills the socket before it is registered would come in one batch, and
			// its echo would be more than may wait for a client (TxLimit).
			_, err := c.Write([]byte{0})
			qt.Assert(t, qt.IsNil(err))
			_, err = io.ReadFull(c, make([]byte, 1))
			qt.Assert(t, qt.IsNil(err))
			go func() { _, _ = io.Copy(io.Discard, c) }()
			go func() {
				for chunk := random(64<<10, 1); ; {
					if _, err := c.Write(chunk); err != nil {
						return
					}
				}
			}()
			received := func() uint64 { st := a.Port.Status().Stats; return st.SteeredBytes + st.CopiedBytes + st.ReadBytes }
			waitFor(t, func() bool { return a.Port.Status().Stats.SteeredBytes > 1<<20 })
			nft(t, l, fmt.Sprintf(rules, l.ServerDev))
			// What was on its way may arrive still, and counters are published late.
			before, now := uint64(0), received()
			for range 20 {
				time.Sleep(2 * time.Second)
				if before, now = now, received(); now == before {
					break
				}
			}
			qt.Check(t, qt.Equals(now, before), qt.Commentf("the upload goes on: %+v", a.Port.Status()))
			c.Close()
		})
	}
}

// Strict reverse-path filters see payload where its sender is.
func TestReversePathFilters(t *testing.T) {
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t), "--listen", "[::]:8080", "--copybreak", "-1")
	// As firewalld has it (IPv6_rpfilter=strict).
	nft(t, l, `table inet rp {
		chain p {
			type filter hook prerouting priority -310
			meta nfproto ipv6 fib saddr . mark . iif oif missing drop
		}
	}`)
	qt.Assert(t, qt.IsNil(l.InServer(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("1"), 0)
	})))
	for _, ip := range []netip.Addr{l.ServerIP4, l.ServerIP6} {
		_, err := post(newClient(t, l), "http://"+net.JoinHostPort(ip.String(), "8080"), random(4<<20, 1))
		qt.Assert(t, qt.IsNil(err))
	}
	e := s.stop()
	qt.Check(t, qt.IsTrue(e.Port.Stats.SteeredBytes > 4<<20), qt.Commentf("%+v", e.Port.Stats))
}

// A socket that is bound to the NIC is served like any other.
func TestBoundToDevice(t *testing.T) {
	l := newLab(t, netlab.Config{})
	a := startEchoCopybreak(t, l, -1)
	qt.Assert(t, qt.IsNil(a.BindToDevice(l.ServerDev)))
	qt.Assert(t, qt.IsNil(tripFrom(l, a.Addr, random(4<<20, 1), 64_000)))
	st := a.Port.Status().Stats
	qt.Check(t, qt.IsTrue(st.SteeredBytes > 2<<20), qt.Commentf("%+v", st))
}

// Peers with link-local addresses get everything in place, too.
func TestLinkLocal(t *testing.T) {
	l := newLab(t, netlab.Config{})
	local := func(dev string) (ip string, index int) {
		nic, err := netlink.LinkByName(dev)
		qt.Assert(t, qt.IsNil(err))
		addrs, err := netlink.AddrList(nic, netlink.FAMILY_V6)
		qt.Assert(t, qt.IsNil(err))
		for _, a := range addrs {
			if a.IP.IsLinkLocalUnicast() {
				return a.IP.String(), nic.Attrs().Index
			}
		}
		t.Fatalf("%s has no link-local address", dev)
		return "", 0
	}
	var server string
	var out int
	qt.Assert(t, qt.IsNil(l.InServer(func() error { server, _ = local(l.ServerDev); return nil })))
	qt.Assert(t, qt.IsNil(l.InClient(func() error { _, out = local(l.ClientDev); return nil })))
	s := serve(t, l, poolFile(t), "--listen", "[::]:8080", "--copybreak", "-1")
	c := newClient(t, l)
	_, err := post(c, "http://["+server+"%25"+strconv.Itoa(out)+"]:8080", random(uploadSize, 1))
	qt.Assert(t, qt.IsNil(err))
	e := s.stop()
	qt.Check(t, qt.IsTrue(e.Port.Stats.SteeredBytes > uploadSize/2), qt.Commentf("%+v", e.Port.Stats))
}

// What captures packets on the NIC sees payload there.
func TestCaptureOnTheNIC(t *testing.T) {
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t), "--copybreak", "-1")
	fd := -1
	qt.Assert(t, qt.IsNil(l.InServer(func() (err error) {
		nic, err := netlink.LinkByName(l.ServerDev)
		if err != nil {
			return err
		}
		all := int(unix.ETH_P_ALL)>>8 | unix.ETH_P_ALL&0xff<<8
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all); err != nil {
			return err
		}
		tv := unix.NsecToTimeval(int64(patience))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: nic.Attrs().Index})
	})))
	defer unix.Close(fd)
	mark := []byte("in the middle of what was sent")
	body := random(4<<20, 1)
	copy(body[2<<20:], mark)
	_, err := post(newClient(t, l), s.url, body)
	qt.Assert(t, qt.IsNil(err))
	for buf := make([]byte, 1<<17); ; {
		n, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue
		}
		qt.Assert(t, qt.IsNil(err), qt.Commentf("the capture does not have the payload"))
		if bytes.Contains(buf[:n], mark) {
			break
		}
	}
	e := s.stop()
	qt.Check(t, qt.IsTrue(e.Port.Stats.SteeredBytes > 2<<20), qt.Commentf("%+v", e.Port.Stats))
}

// Where no program finds room at the NIC's ingress any more, payload comes in on the
// injection device, and the server says so.
func TestNoRoomAtTheIngress(t *testing.T) {
	l := newLab(t, netlab.Config{})
	qt.Assert(t, qt.IsNil(l.InServer(func() error {
		nic, err := netlink.LinkByName(l.ServerDev)
		if err != nil {
			return err
		}
		for { // the kernel takes 64
			prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
				Type: ebpf.SchedCLS, License: "BSD",
				Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}, // TCX_NEXT
			})
			if err != nil {
				return err
			}
			t.Cleanup(func() { prog.Close() })
			at, err := link.AttachTCX(link.TCXOptions{Interface: nic.Attrs().Index, Program: prog, Attach: ebpf.AttachTCXIngress})
			if err != nil {
				return nil
			}
			t.Cleanup(func() { at.Close() })
		}
	})))
	s := serve(t, l, poolFile(t), "--copybreak", "-1")
	_, err := post(newClient(t, l), s.url, random(uploadSize, 1))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(s.status(l).Injected, "device"))
	e := s.stop()
	qt.Check(t, qt.IsTrue(e.Port.Stats.SteeredBytes > uploadSize/2), qt.Commentf("%+v", e.Port.Stats))
	qt.Check(t, qt.IsTrue(strings.Contains(s.Said(), "not on the NIC")), qt.Commentf("%s", s.Said()))
}

// A sender chooses its MAC address, too, and so what looks like a ticket.
func TestForgedSourceAddress(t *testing.T) {
	l := newLab(t, netlab.Config{})
	out, err := l.ClientCommand(context.Background(), "ip", "link", "set", l.ClientDev, "address", "02:70:01:00:01:00").CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	a := startEchoCopybreak(t, l, -1)
	parallel(t, 8, func(i int) error { return tripFrom(l, a.Addr, random(300_000, int64(i)), 10_000) })
	st := a.Port.Status()
	qt.Check(t, qt.Equals(st.Stats.Steered, 0), qt.Commentf("%+v", st))
	qt.Check(t, qt.IsTrue(st.Steer["pass_injected"] > 0), qt.Commentf("%+v", st))
}

// A connection that comes on a queue of another ring than its own is copied, and no
// other ring has to do with it.
func TestQueueOfAnotherRing(t *testing.T) {
	l := newLab(t, netlab.Config{Queues: 2})
	s := serve(t, l, poolFile(t), "--rings", "2", "--copybreak", "-1", "--on-full", "wrap")
	c := newClient(t, l)
	for i := range 16 {
		c.CloseIdleConnections()
		_, err := post(c, s.url, random(1<<20, int64(i)))
		qt.Assert(t, qt.IsNil(err))
	}
	e := s.stop()
	qt.Check(t, qt.Equals(e.Port.Stats.NoTicket, 0), qt.Commentf("%+v", e.Port))
}
