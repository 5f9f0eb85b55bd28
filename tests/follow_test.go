package tests

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/pasteapi"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// portStatus is the status of the one port in the server's namespace, whatever its
// NIC is called at the moment.
func portStatus(t testing.TB, l *netlab.Lab) (st pasteapi.Status) {
	t.Helper()
	waitFor(t, func() bool {
		err := l.InServer(func() error {
			ports, err := pasteapi.ListPorts(context.Background())
			if err == nil && len(ports) == 1 {
				st = ports[0].Status
			}
			return err
		})
		// It waits for an answer for so long, and the machine may have stood still.
		if errors.Is(err, context.DeadlineExceeded) {
			return false
		}
		qt.Assert(t, qt.IsNil(err))
		return true
	})
	return st
}

// steersAgain waits until uploads are received in place.
func steersAgain(t testing.TB, l *netlab.Lab, s *server) {
	t.Helper()
	c := newClient(t, l)
	waitFor(t, func() bool {
		c.CloseIdleConnections()
		before := portStatus(t, l)
		if _, err := post(c, s.url, random(4<<20, 1)); err != nil {
			t.Fatal(err)
		}
		after := portStatus(t, l)
		return before.Lost == "" && after.Stats.SteeredBytes > before.Stats.SteeredBytes+(1<<20)
	})
}

func once(t testing.TB, s *server, sentence string) {
	t.Helper()
	qt.Check(t, qt.Equals(strings.Count(s.Said(), sentence), 1), qt.Commentf("%s", s.Said()))
}

// The NIC is deleted under a server, and made again.
func TestNICMadeAgain(t *testing.T) {
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t), "--on-full", "wrap", "--listen", "0.0.0.0:8080")
	s.url = "http://" + net.JoinHostPort(l.ServerIP4.String(), "8080")
	steersAgain(t, l, s)
	for range 2 {
		qt.Assert(t, qt.IsNil(l.InServer(func() error {
			nic, err := netlink.LinkByName(l.ServerDev)
			if err != nil {
				return err
			}
			return netlink.LinkDel(nic)
		})))
		waitFor(t, func() bool { return strings.Contains(portStatus(t, l).Lost, "gone") })
		qt.Assert(t, qt.IsNil(l.InServer(func() error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = l.ServerDev
			veth := netlink.NewVeth(attrs)
			veth.PeerName, veth.PeerNamespace = l.ClientDev, netlink.NsFd(l.Client.Fd())
			return errors.Join(netlink.LinkAdd(veth), setUp(l.ServerDev, l.ServerIP4.String()+"/24"))
		})))
		qt.Assert(t, qt.IsNil(l.InClient(func() error { return setUp(l.ClientDev, l.ClientIP4.String()+"/24") })))
		steersAgain(t, l, s)
	}
	qt.Check(t, qt.Equals(strings.Count(s.Said(), "the interface is lost"), 2), qt.Commentf("%s", s.Said()))
	s.stop()
}

// The NIC gets another name.
func TestNICRenamed(t *testing.T) {
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t), "--on-full", "wrap")
	steersAgain(t, l, s)
	old := l.ServerDev
	qt.Assert(t, qt.IsNil(l.InServer(func() error {
		nic, err := netlink.LinkByName(old)
		if err != nil {
			return err
		}
		// Going down takes the lab's route along.
		routes, err := netlink.RouteList(nic, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		err = errors.Join(netlink.LinkSetDown(nic), netlink.LinkSetName(nic, "renamed0"), netlink.LinkSetUp(nic))
		for _, r := range routes {
			err = errors.Join(err, netlink.RouteReplace(&r))
		}
		return err
	})))
	waitFor(t, func() bool { return portStatus(t, l).NIC == "renamed0" })
	stdout, stderr, err := ctl(l, "status", "renamed0")
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", stderr))
	qt.Check(t, qt.StringContains(stdout, "renamed0: in use"))
	steersAgain(t, l, s)
	once(t, s, "the interface was renamed")
	s.stop()
}

// setQueues is `ethtool -L NIC rx RX tx TX` (struct ethtool_channels,
// include/uapi/linux/ethtool.h).
func setQueues(name string, rx, tx int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	channels := &[9]uint32{0: unix.ETHTOOL_SCHANNELS, 5: uint32(rx), 6: uint32(tx)}
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(channels)
	req := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(channels)}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return errno
	}
	return nil
}

// The NIC gets more queues. (The kernel takes none away that has an AF_XDP socket.)
func TestQueuesAdded(t *testing.T) {
	l := newLab(t, netlab.Config{Queues: 2})
	set := func(n int) {
		t.Helper()
		qt.Assert(t, qt.IsNil(l.InServer(func() error { return setQueues(l.ServerDev, n, n) })))
		qt.Assert(t, qt.IsNil(l.InClient(func() error { return setQueues(l.ClientDev, n, n) })))
	}
	set(1)
	s := serve(t, l, poolFile(t), "--on-full", "wrap", "--copybreak", "-1")
	qt.Check(t, qt.HasLen(portStatus(t, l).Queues, 1))
	steersAgain(t, l, s)
	set(2)
	waitFor(t, func() bool { return len(portStatus(t, l).Queues) == 2 })
	steersAgain(t, l, s)
	once(t, s, "2 queues now")
	s.stop()
}

// Somebody detaches the NIC under a server, and attaches it again.
func TestDetachedUnderServer(t *testing.T) {
	l := newLab(t, netlab.Config{})
	usePrivateBPFFS(t)
	run := func(args ...string) {
		t.Helper()
		_, stderr, err := ctl(l, args...)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", stderr))
	}
	run("attach", l.ServerDev)
	s := serve(t, l, poolFile(t), "--on-full", "wrap")
	steersAgain(t, l, s)
	run("detach", l.ServerDev)
	waitFor(t, func() bool { return portStatus(t, l).Lost != "" })
	_, err := post(newClient(t, l), s.url, random(1<<20, 1))
	qt.Assert(t, qt.IsNil(err))
	run("attach", l.ServerDev)
	steersAgain(t, l, s)
	once(t, s, "the interface is lost")
	once(t, s, "the interface is back")
	s.stop()
	run("detach", l.ServerDev)
}

// What an operator does to a NIC under load delays uploads, and changes no byte: down
// and up, another MTU, an attempt to take the program off, and firewall rules anew.
func TestOperatorUnderLoad(t *testing.T) {
	l := newLab(t, netlab.Config{Pin: &netlab.Pin{}})
	s := serve(t, l, poolFile(t), "--on-full", "wrap", "--copybreak", "-1")
	rules := `flush ruleset
	table inet lab {
		chain i {
			type filter hook input priority 0
			ct state invalid drop
			iifname "` + l.ServerDev + `" tcp dport 8080 accept
		}
	}`
	acts := []func() error{
		func() error { return runIn(l, "ip", "link", "set", l.ServerDev, "down") },
		func() error { return runIn(l, "ip", "link", "set", l.ServerDev, "up") },
		// The routes went with it.
		func() error { return runIn(l, "ip", "route", "replace", "10.77.0.0/24", "dev", l.ServerDev) },
		func() error { return setMTU(l.ServerDev, 1400)() },
		func() error { return setMTU(l.ServerDev, 1500)() },
		func() error {
			if runIn(l, "ip", "link", "set", l.ServerDev, "xdp", "off") == nil {
				return errors.New("the program could be taken off")
			}
			return nil
		},
		func() error { nft(t, l, rules); return nil },
	}
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- l.InServer(func() error {
			for {
				for _, act := range acts {
					if err := act(); err != nil {
						return err
					}
					select {
					case <-stop:
						return nil
					case <-time.After(50 * time.Millisecond):
					}
				}
			}
		})
	}()
	c := newClient(t, l)
	sums := make([][32]byte, 16)
	seqs := make([]uint64, len(sums))
	parallel(t, 4, func(i int) (err error) {
		for j := range 4 {
			data := random(1<<20, int64(4*i+j))
			sums[4*i+j] = sum(data)
			// Of an interface that is down for long, on a slow machine, neighbours say so.
			for end := time.Now().Add(patience); ; {
				seqs[4*i+j], err = post(c, s.url, data)
				if !errors.Is(err, unix.EHOSTUNREACH) || time.Now().After(end) {
					break
				}
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	close(stop)
	qt.Check(t, qt.IsNil(<-done))
	steersAgain(t, l, s)
	s.stop()
	log := readLog(t, s.pool)
	for i := range sums {
		qt.Check(t, qt.Equals(log[seqs[i]], sums[i]))
	}
}

func runIn(l *netlab.Lab, name string, args ...string) error {
	return l.ServerCommand(context.Background(), name, args...).Run()
}
