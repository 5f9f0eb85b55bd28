// Package netlab builds the network that the demo, the benchmark and the tests
// play in: two network namespaces joined by a veth pair, one for the server
// and one for the client.
//
// [New] first removes what processes that were killed have left behind, so that
// nobody has to. No external tool is used. Everything needs CAP_NET_ADMIN and
// CAP_SYS_ADMIN.
package netlab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Config of a [Lab]. The zero value is usable.
type Config struct {
	// Prefix distinguishes the users of this package in namespace and device
	// names: 1 to 4 lower-case letters, "lab" when empty.
	Prefix string
	// MTU of both ends in bytes; 1500 when zero.
	MTU int
	// Queues is the number of receive and transmit queues of both ends; 1 when
	// zero.
	Queues int
	// Named gives the namespaces names under /run/netns, for people who want to
	// look into them with `ip netns exec`. Without names they vanish with this
	// process, however it ends; with names, what a killed process leaves is
	// removed by the next New.
	Named bool
	// Quiet leaves the devices without addresses and switches IPv6 off on them, so
	// that no frame is on the wire but those of the test.
	Quiet bool
	// ServerInCaller leaves the server's end in the caller's namespace. Only
	// the client gets one of its own.
	ServerInCaller bool
	// Subnet4 holds the IPv4 addresses: the first is the server's, the second
	// the client's. 10.77.0.0/24 when not valid. Labs with ServerInCaller
	// that live at the same time need different ones.
	Subnet4 netip.Prefix
	// Subnet6 is the same for IPv6; fd00:77::/64 when not valid.
	Subnet6 netip.Prefix
	// Pin moves the receive processing of each end into a kernel thread
	// (threaded NAPI) bound to a CPU. Nil leaves it where the kernel puts it:
	// on the sender's CPU.
	Pin *Pin
	// NoTxChecksum switches transmit checksum offload off on both ends, so
	// that frames carry complete checksums as on a real wire.
	NoTxChecksum bool
	// Wire has the client's end send what a wire would bring: frames no larger than
	// the MTU, with complete checksums. The server's end merges them again (GRO), as
	// drivers do. What no veth can: leave the check of checksums to the hardware.
	Wire bool
	// CongestionControl of connections over the pair, both ways; "cubic" when
	// empty. It is a property of the routes: outside of the first namespace the
	// tcp_congestion_control sysctl takes unrestricted algorithms only, and which
	// those are is nothing to change for the whole machine.
	CongestionControl string
}

// Pin says on which CPUs packets are received.
type Pin struct {
	ServerCPU, ClientCPU int
	// RPS leaves NAPI where a veth has it, on the sender's CPU, and moves only
	// what follows, the protocol stack (receive packet steering). XDP runs
	// before it, and so on the sender's CPU too.
	RPS bool
}

// Lab is a veth pair with its namespaces. Its methods may be called from
// several goroutines.
type Lab struct {
	Server, Client       *Netns
	ServerDev, ClientDev string
	ServerIP4, ClientIP4 netip.Addr
	ServerIP6, ClientIP6 netip.Addr // not valid when the kernel has no IPv6
	cfg                  Config
	closeOnce            sync.Once
	closeErr             error
}

var sequence atomic.Uint32

// New sweeps, then builds a lab. ctx bounds the construction only; the caller
// owns the lab and must Close it.
func New(ctx context.Context, cfg Config) (_ *Lab, err error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	if err := Sweep(); err != nil {
		return nil, err
	}
	id := strconv.FormatUint(uint64(sequence.Add(1)), 36)
	// Unique on the machine, as a NAPI thread is found by its device's name,
	// and within the 15 bytes of a device name.
	tag := id + strconv.FormatInt(int64(os.Getpid()), 36)
	l := &Lab{
		cfg:       cfg,
		ServerDev: cfg.Prefix + "s" + tag,
		ClientDev: cfg.Prefix + "c" + tag,
		ServerIP4: cfg.Subnet4.Masked().Addr().Next(),
		ServerIP6: cfg.Subnet6.Masked().Addr().Next(),
	}
	if len(l.ServerDev) > unix.IFNAMSIZ-1 {
		return nil, fmt.Errorf("build lab: device name %q is too long, use a shorter prefix", l.ServerDev)
	}
	l.ClientIP4, l.ClientIP6 = l.ServerIP4.Next(), l.ServerIP6.Next()
	defer func() {
		if err != nil {
			_ = l.Close()
		}
	}()
	if cfg.ServerInCaller {
		l.Server, err = Current()
	} else {
		l.Server, err = cfg.netns(id, "server")
	}
	if err != nil {
		return nil, fmt.Errorf("build lab: %w", err)
	}
	if l.Client, err = cfg.netns(id, "client"); err != nil {
		return nil, fmt.Errorf("build lab: %w", err)
	}
	for _, step := range []func() error{l.sysctls, l.link, l.offloads, l.pin} {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("build lab: %w", err)
		}
		if err := step(); err != nil {
			return nil, fmt.Errorf("build lab: %w", err)
		}
	}
	return l, nil
}

func (c *Config) netns(id, role string) (*Netns, error) {
	if c.Named {
		return newNamedNetns(name(c.Prefix+id, role, os.Getpid()))
	}
	return NewNetns()
}

func (c *Config) fill() error {
	if c.Prefix == "" {
		c.Prefix = "lab"
	}
	if len(c.Prefix) > 4 {
		return fmt.Errorf("build lab: prefix %q is longer than 4 letters", c.Prefix)
	}
	for _, r := range c.Prefix {
		if r < 'a' || r > 'z' {
			return fmt.Errorf("build lab: prefix %q is not made of lower-case letters", c.Prefix)
		}
	}
	if c.MTU == 0 {
		c.MTU = 1500
	}
	if c.Queues == 0 {
		c.Queues = 1
	}
	if !c.Subnet4.IsValid() {
		c.Subnet4 = netip.MustParsePrefix("10.77.0.0/24")
	}
	if !c.Subnet6.IsValid() {
		c.Subnet6 = netip.MustParsePrefix("fd00:77::/64")
	}
	if c.CongestionControl == "" {
		c.CongestionControl = "cubic"
	}
	return nil
}

// sysctls makes devices that come later have their addresses at once, without
// duplicate address detection; or, if they are to be quiet, none of IPv6.
func (l *Lab) sysctls() error {
	for _, ns := range []*Netns{l.Server, l.Client} {
		if !ns.own {
			continue
		}
		err := ns.Do(func() error {
			settings := map[string]string{"net/ipv6/conf/default/accept_dad": "0", "net/ipv6/conf/all/accept_dad": "0"}
			if l.cfg.Quiet {
				settings["net/ipv6/conf/default/disable_ipv6"] = "1"
			}
			for k, v := range settings {
				// Absent without IPv6.
				if err := sysctl(k, v); err != nil && !errors.Is(err, os.ErrNotExist) {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("namespace %s: %w", ns.Name(), err)
		}
	}
	return nil
}

// link makes the veth pair, its addresses, and brings everything up.
func (l *Lab) link() error {
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		l.ServerIP6, l.ClientIP6 = netip.Addr{}, netip.Addr{}
	}
	server, err := l.Server.netlink()
	if err != nil {
		return err
	}
	defer server.Close()
	client, err := l.Client.netlink()
	if err != nil {
		return err
	}
	defer client.Close()

	q := l.cfg.Queues
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.NumRxQueues, attrs.NumTxQueues = l.ServerDev, l.cfg.MTU, q, q
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerMTU = l.ClientDev, uint32(l.cfg.MTU)
	veth.PeerNumRxQueues, veth.PeerNumTxQueues = uint32(q), uint32(q)
	veth.PeerNamespace = netlink.NsFd(l.Client.fd)
	if err := server.LinkAdd(veth); err != nil {
		return fmt.Errorf("create veth pair %s/%s: %w", l.ServerDev, l.ClientDev, err)
	}
	for _, e := range []struct {
		h    *netlink.Handle
		ns   *Netns
		dev  string
		a, b netip.Addr
	}{
		{server, l.Server, l.ServerDev, l.ServerIP4, l.ServerIP6},
		{client, l.Client, l.ClientDev, l.ClientIP4, l.ClientIP6},
	} {
		if e.ns.own {
			if err := up(e.h, "lo"); err != nil {
				return err
			}
		}
		if err := up(e.h, e.dev); err != nil {
			return err
		}
		if l.cfg.Quiet {
			continue
		}
		for _, p := range []netip.Prefix{netip.PrefixFrom(e.a, l.cfg.Subnet4.Bits()), netip.PrefixFrom(e.b, l.cfg.Subnet6.Bits())} {
			if !p.IsValid() {
				continue
			}
			if err := addAddr(e.h, e.dev, p, l.cfg.CongestionControl); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close kills the commands still running in the namespaces and removes the
// link and the namespaces. It is idempotent.
func (l *Lab) Close() error {
	l.closeOnce.Do(func() {
		var errs []error
		if l.Client != nil {
			// Explicitly, because the death of a namespace is asynchronous.
			if h, err := l.Client.netlink(); err == nil {
				if link, err := h.LinkByName(l.ClientDev); err == nil {
					errs = append(errs, h.LinkDel(link))
				}
				h.Close()
			}
			errs = append(errs, l.Client.Close())
		}
		if l.Server != nil {
			errs = append(errs, l.Server.Close())
		}
		l.closeErr = errors.Join(errs...)
	})
	return l.closeErr
}

// InServer runs fn in the server's namespace; see [Netns.Do].
func (l *Lab) InServer(fn func() error) error { return l.Server.Do(fn) }

// InClient runs fn in the client's namespace; see [Netns.Do].
func (l *Lab) InClient(fn func() error) error { return l.Client.Do(fn) }

// ServerCommand prepares a command in the server's namespace; see
// [Netns.Command].
func (l *Lab) ServerCommand(ctx context.Context, name string, args ...string) *Cmd {
	return l.Server.Command(ctx, name, args...)
}

// ClientCommand prepares a command in the client's namespace; see
// [Netns.Command].
func (l *Lab) ClientCommand(ctx context.Context, name string, args ...string) *Cmd {
	return l.Client.Command(ctx, name, args...)
}
