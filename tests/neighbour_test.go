package tests

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// neighbour is a network namespace with an address on the lab's network behind
// the server's NIC. Frames for it have the NIC's MAC address.
type neighbour struct {
	ns netns.NsHandle
	ip string
}

// inNetns runs fn on this thread in another network namespace.
func inNetns(t testing.TB, ns netns.NsHandle, fn func() error) {
	t.Helper()
	runtime.LockOSThread()
	old, err := netns.Get()
	qt.Assert(t, qt.IsNil(err))
	defer old.Close()
	qt.Assert(t, qt.IsNil(netns.Set(ns)))
	err = fn()
	qt.Assert(t, qt.IsNil(netns.Set(old)))
	runtime.UnlockOSThread()
	qt.Assert(t, qt.IsNil(err))
}

// newNeighbour makes one: an ipvlan on the NIC if that is wished for and the
// kernel has it, else a host that the server forwards to.
func newNeighbour(t testing.TB, l *netlab.Lab, ipvlan bool) *neighbour {
	t.Helper()
	n := &neighbour{ip: "10.77.0.9"}
	runtime.LockOSThread()
	old, err := netns.Get()
	qt.Assert(t, qt.IsNil(err))
	n.ns, err = netns.New()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(netns.Set(old)))
	runtime.UnlockOSThread()
	old.Close()
	t.Cleanup(func() { n.ns.Close() })

	if ipvlan {
		err := l.InServer(func() error { return n.addIPVLAN(l.ServerDev) })
		if !errors.Is(err, unix.EOPNOTSUPP) {
			qt.Assert(t, qt.IsNil(err))
			inNetns(t, n.ns, func() error { return setUp("nb1", n.ip+"/24") })
			return n
		}
		t.Log("this kernel has no ipvlan: a routed host stands in for it")
	}
	var mac, nic net.HardwareAddr
	qt.Assert(t, qt.IsNil(l.InServer(func() (err error) {
		if nic, err = macOf(l.ServerDev); err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "nb0"
		veth := netlink.NewVeth(attrs)
		veth.PeerName, veth.PeerNamespace = "nb1", netlink.NsFd(n.ns)
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		if err := setUp("nb0", ""); err != nil {
			return err
		}
		if mac, err = macOf("nb0"); err != nil {
			return err
		}
		link, err := netlink.LinkByName("nb0")
		if err != nil {
			return err
		}
		host := &net.IPNet{IP: net.ParseIP(n.ip), Mask: net.CIDRMask(32, 32)}
		return errors.Join(
			os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0),
			netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: host, Scope: netlink.SCOPE_LINK}))
	})))
	// Both sides know each other's MAC address, as nobody answers ARP for them.
	inNetns(t, n.ns, func() error {
		return errors.Join(setUp("nb1", n.ip+"/24"), addNeigh("nb1", l.ClientIP4.AsSlice(), mac))
	})
	qt.Assert(t, qt.IsNil(l.InClient(func() error { return addNeigh(l.ClientDev, net.ParseIP(n.ip), nic) })))
	return n
}

func (n *neighbour) addIPVLAN(nic string) error {
	parent, err := netlink.LinkByName(nic)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.Namespace = "nb1", parent.Attrs().Index, netlink.NsFd(n.ns)
	return netlink.LinkAdd(&netlink.IPVlan{LinkAttrs: attrs, Mode: netlink.IPVLAN_MODE_L2})
}

func macOf(name string) (net.HardwareAddr, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return nil, err
	}
	return l.Attrs().HardwareAddr, nil
}

// setUp brings an interface up and gives it an address, if that is not "".
func setUp(name, addr string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if addr != "" {
		a, err := netlink.ParseAddr(addr)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}

func addNeigh(name string, ip net.IP, mac net.HardwareAddr) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.NeighAdd(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: ip, HardwareAddr: mac, State: netlink.NUD_PERMANENT})
}

// echoes serves on a listener until the test ends.
func echoes(t testing.TB, ln net.Listener) {
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

func (n *neighbour) echoes(t testing.TB, port int) (addr string) {
	t.Helper()
	addr = net.JoinHostPort(n.ip, strconv.Itoa(port))
	var ln net.Listener
	inNetns(t, n.ns, func() (err error) {
		ln, err = net.Listen("tcp4", addr)
		return err
	})
	echoes(t, ln)
	return addr
}

// stopped stops a server while fn runs.
func (s *server) stopped(fn func()) {
	s.t.Helper()
	qt.Assert(s.t, qt.IsNil(s.Signal(syscall.SIGSTOP)))
	defer func() { qt.Check(s.t, qt.IsNil(s.Signal(syscall.SIGCONT))) }()
	fn()
}

// counted is what a named counter in nftables of the server's namespace says.
func counted(t testing.TB, l *netlab.Lab, table, counter string) (bytes int) {
	t.Helper()
	out, err := l.ServerCommand(context.Background(), "nft", "list", "counter", "inet", table, counter).CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	m := regexp.MustCompile(`bytes (\d+)`).FindSubmatch(out)
	qt.Assert(t, qt.HasLen(m, 2), qt.Commentf("%s", out))
	bytes, err = strconv.Atoi(string(m[1]))
	qt.Assert(t, qt.IsNil(err))
	return bytes
}

func nft(t testing.TB, l *netlab.Lab, rules string) {
	t.Helper()
	cmd := l.ServerCommand(context.Background(), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	out, err := cmd.CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s\n%s", rules, out))
}

// A namespace behind the NIC's own MAC address has a server on the port that
// ours is on. Nothing that ours does concerns it, not even standing still.
func TestNeighbourOnTheSameMAC(t *testing.T) {
	l := newLab(t, netlab.Config{})
	n := newNeighbour(t, l, true)
	addr := n.echoes(t, 8080)
	s := serve(t, l, poolFile(t), "--copybreak", "-1")
	_, err := post(newClient(t, l), s.url, random(8<<20, 1))
	qt.Assert(t, qt.IsNil(err))
	s.stopped(func() { qt.Check(t, qt.IsNil(tripFrom(l, addr, random(100_000, 1), 4000))) })
	e := s.stop()
	qt.Check(t, qt.IsTrue(e.Port.Stats.Steered > 0), qt.Commentf("%+v", e.Port.Stats))
	qt.Check(t, qt.Equals(e.Port.Stats.NoTicket, 0))
}

// What the server forwards goes past the rules for that.
func TestForwardedUpload(t *testing.T) {
	l := newLab(t, netlab.Config{})
	n := newNeighbour(t, l, false)
	addr := n.echoes(t, 8080)
	nft(t, l, fmt.Sprintf(`table inet lab {
		counter forwarded { }
		chain f { type filter hook forward priority 0; iifname "%s" tcp dport 8080 counter name forwarded; }
	}`, l.ServerDev))
	s := serve(t, l, poolFile(t), "--copybreak", "-1")
	const size = 1 << 20
	qt.Check(t, qt.IsNil(tripFrom(l, addr, random(size, 2), 64_000)))
	got := counted(t, l, "lab", "forwarded")
	qt.Check(t, qt.IsTrue(got >= size), qt.Commentf("%d bytes of %d", got, size))
	s.stop()
}

// Another server has the same port of another address of the host.
func TestOtherAddressSamePort(t *testing.T) {
	l := newLab(t, netlab.Config{})
	const other = "10.77.0.3"
	qt.Assert(t, qt.IsNil(l.InServer(func() error { return setUp(l.ServerDev, other+"/24") })))
	ln, err := l.Server.Listen(t.Context(), "tcp", net.JoinHostPort(other, "8080"))
	qt.Assert(t, qt.IsNil(err))
	echoes(t, ln)
	pool := poolFile(t)
	s := serve(t, l, pool, "--copybreak", "-1")
	s.stopped(func() { qt.Check(t, qt.IsNil(tripFrom(l, ln.Addr().String(), random(100_000, 3), 4000))) })
	s.stop()
	ln.Close()

	// An address that comes while the server on all of them runs is its own.
	all := serve(t, l, pool, "--copybreak", "-1", "--listen", "[::]:8080")
	const late = "10.77.0.4"
	qt.Assert(t, qt.IsNil(l.InServer(func() error { return setUp(l.ServerDev, late+"/24") })))
	_, err = post(newClient(t, l), "http://"+net.JoinHostPort(late, "8080"), random(8<<20, 4))
	qt.Assert(t, qt.IsNil(err))
	e := all.stop()
	qt.Check(t, qt.IsTrue(e.Port.Stats.SteeredBytes > 0), qt.Commentf("%+v", e.Port.Stats))
}
