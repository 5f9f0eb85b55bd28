package doctor

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/xsk"
)

func linkState(m *machine) Result {
	a := m.link.Attrs()
	if len(a.HardwareAddr) != 6 {
		return missing("name an Ethernet interface", "%s (%s) has no Ethernet address: it cannot be attached", a.Name, m.link.Type())
	}
	if a.OperState != netlink.OperUp && a.OperState != netlink.OperUnknown {
		return missing(fmt.Sprintf("ip link set %s up, and look at its cable or other end", a.Name), "%s is %s: nothing arrives", a.Name, a.OperState)
	}
	return ok("%s is %s", a.Name, a.OperState)
}

// driver is about what decides the way in: zero-copy or not.
func driver(m *machine) Result {
	name := m.driverName()
	f, err := xsk.Driver(m.link.Attrs().Index)
	switch {
	case err != nil:
		return failed(Slow, err)
	case f&xsk.DriverZeroCopy != 0:
		return ok("%s has native XDP and AF_XDP zero-copy: payload is steered", name)
	case f&(xsk.DriverXDP|xsk.DriverRedirect) != 0:
		return slow("use a NIC whose driver has it, or leave it so: --receive auto takes what costs least",
			"%s has native XDP, and no AF_XDP zero-copy: nothing is steered unless it is asked for, and then payload is copied once", name)
	}
	return slow("use a NIC whose driver has native XDP, or leave it so: --receive auto takes what costs least",
		"%s has no native XDP: what is steered goes the generic way, which is slow", name)
}

func (m *machine) driverName() string {
	if m.eth != nil {
		if name, err := m.eth.DriverName(m.opts.NIC); err == nil && name != "" {
			return name
		}
	}
	return m.link.Type()
}

// xdpProgram asks whose program is on the NIC: there can be one only.
func xdpProgram(m *machine) Result {
	xdp := m.link.Attrs().Xdp
	if xdp == nil || !xdp.Attached {
		return ok("none: a port attaches its own where it pays")
	}
	if p, err := pasteapi.QueryNIC(m.ctx, m.opts.NIC); err == nil {
		return ok("PASTE's, in use by process %d", p.PID)
	}
	s, err := bpf.OpenSteer(m.ctx, m.opts.BPFFS, m.opts.NIC)
	switch {
	case err == nil:
		mode := s.Info().Mode
		s.Close()
		if mode == bpf.ModeGeneric {
			return slow(fmt.Sprintf("pastectl detach %s && pastectl attach --mode native %s says why not native", m.opts.NIC, m.opts.NIC),
				"attached in generic mode, which is slow")
		}
		return ok("PASTE's, attached until detach, %s mode", mode)
	case errors.Is(err, bpf.ErrNoPrivilege):
		return slow("run pastectl doctor as root", "program %d: this user may not find out whose", xdp.ProgId)
	case errors.Is(err, bpf.ErrNotAttached), errors.Is(err, bpf.ErrAttachedByOther):
		return missing(fmt.Sprintf("stop what attached it, or ip link set %s xdp off", m.opts.NIC),
			"program %d of another application is on %s: nothing can be steered", xdp.ProgId, m.opts.NIC)
	}
	return failed(Missing, err)
}

// mostTCX is how many programs an interface's ingress takes (bpf_mprog_max in
// include/linux/bpf_mprog.h).
const mostTCX = 63

// ingress looks for room for the program that has injected payload come in on the NIC.
func ingress(m *machine) Result {
	q, err := link.QueryPrograms(link.QueryOptions{Target: m.link.Attrs().Index, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return slow("run pastectl doctor as root", "not examined: %v", err)
	}
	if n := len(q.Programs); n >= mostTCX {
		return slow("remove some of those that `bpftool net` shows",
			"%d programs are at the ingress of %s, and there is no room for one more: payload comes in on pst0, where rules for %s do not match and bound sockets miss it",
			n, m.opts.NIC, m.opts.NIC)
	}
	return ok("%d programs at the ingress: payload comes in on %s itself", len(q.Programs), m.opts.NIC)
}

func mtu(m *machine) Result {
	have, small, large := m.link.Attrs().MTU, bpf.MaxMTU(2048), bpf.MaxMTU(4096)
	switch {
	case have > large:
		return slow(fmt.Sprintf("ip link set %s mtu %d, with --frame-size 4096", m.opts.NIC, large),
			"%d is more than any frame takes (%d): nothing can be steered", have, large)
	case have > small:
		return slow(fmt.Sprintf("make the pool with --frame-size 4096, or ip link set %s mtu %d", m.opts.NIC, small),
			"%d is more than frames of 2048 bytes take (%d): nothing can be steered into a pool of those", have, small)
	}
	return ok("%d fits frames of 2048 bytes", have)
}

// rpFilter: a strict one is as strict for what comes by a ring as it was without.
func rpFilter(m *machine) Result {
	all := m.value("proc/sys/net/ipv4/conf/all/rp_filter")
	own := m.value("proc/sys/net/ipv4/conf/" + strings.ReplaceAll(m.opts.NIC, ".", "/") + "/rp_filter")
	switch max(all, own) { // the kernel takes the greater one; both are one digit
	case "":
		return ok("this kernel has no IPv4")
	case "1":
		return slow(fmt.Sprintf("sysctl net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.%s.rp_filter=2", strings.ReplaceAll(m.opts.NIC, ".", "/")),
			"strict (1): packets whose answer would leave by another interface are dropped, steered or not")
	}
	return ok("%s: nothing is dropped for the way back", map[string]string{"0": "off", "2": "loose"}[max(all, own)])
}

// vlans are the names of the VLAN devices on the NIC.
func (m *machine) vlans() []string {
	links, _ := netlink.LinkList() // what a change cut off is not there
	var names []string
	for _, l := range links {
		if a := l.Attrs(); l.Type() == "vlan" && a.ParentIndex == m.link.Attrs().Index && a.NetNsID < 0 {
			names = append(names, a.Name)
		}
	}
	return names
}

// nics lists the Ethernet interfaces and what their drivers can do. One that is named is
// looked at more closely.
func nics(*machine) Result {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return failed(Missing, err)
	}
	var all []string
	for _, l := range links {
		a := l.Attrs()
		if len(a.HardwareAddr) != 6 || a.RawFlags&unix.IFF_LOOPBACK != 0 {
			continue
		}
		can := "no native XDP"
		if f, err := xsk.Driver(a.Index); err == nil && f&xsk.DriverZeroCopy != 0 {
			can = "zero-copy"
		} else if err == nil && f&xsk.DriverXDP != 0 {
			can = "native XDP, no zero-copy"
		}
		all = append(all, fmt.Sprintf("%s (%s)", a.Name, can))
	}
	if len(all) == 0 {
		return ok("no Ethernet interface in this network namespace: payload is read or copied")
	}
	return ok("%s; --nic NAME says more", strings.Join(all, ", "))
}
