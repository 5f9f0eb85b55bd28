package bpf

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// nic is what attaching needs to know about an interface, as it was when it
// was looked up.
type nic struct {
	name    string
	kind    string // "veth", "device", …
	ifindex int
	mtu     int
	mac     net.HardwareAddr
	peer    int // ifindex of a veth's other end
	peerNS  int // id of the peer's network namespace, -1 when it is this one

	xdpProg uint32 // id of the attached XDP program, 0 when there is none
	xdpMode XDPMode
}

// Values of IFLA_XDP_ATTACHED (include/uapi/linux/if_link.h).
const (
	xdpAttachedNone = 0
	xdpAttachedSKB  = 2
)

// validNICName reports whether name could be an interface's: the kernel's rule
// (dev_valid_name in net/core/dev.c), so that a name is always one element of a
// path.
func validNICName(name string) bool {
	return name != "" && len(name) < unix.IFNAMSIZ && name != "." && name != ".." &&
		!strings.ContainsAny(name, "/: \t\n\v\f\r")
}

func lookupNIC(name string) (*nic, error) {
	if !validNICName(name) {
		return nil, fmt.Errorf("interface %q: %w: that cannot be an interface's name", name, ErrNoSuchNIC)
	}
	l, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, fmt.Errorf("interface %s: %w in this network namespace: `ip link` lists those there are", name, ErrNoSuchNIC)
	}
	if err != nil {
		return nil, fmt.Errorf("look up interface %s: %w", name, err)
	}
	return nicOf(l)
}

func lookupIndex(ifindex int) (*nic, error) {
	l, err := netlink.LinkByIndex(ifindex)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, fmt.Errorf("interface %d: %w in this network namespace", ifindex, ErrNoSuchNIC)
	}
	if err != nil {
		return nil, fmt.Errorf("look up interface %d: %w", ifindex, err)
	}
	return nicOf(l)
}

func nicOf(l netlink.Link) (*nic, error) {
	a := l.Attrs()
	// A lookup by name also finds alternative names; ours is the primary one.
	n := &nic{name: a.Name, kind: l.Type(), ifindex: a.Index, mtu: a.MTU, mac: a.HardwareAddr, peer: a.ParentIndex, peerNS: a.NetNsID}
	if a.Xdp != nil && a.Xdp.AttachMode != xdpAttachedNone {
		n.xdpProg = a.Xdp.ProgId
		n.xdpMode = ModeNative
		if a.Xdp.AttachMode == xdpAttachedSKB {
			n.xdpMode = ModeGeneric
		}
	}
	if len(n.mac) != 6 {
		return nil, fmt.Errorf("interface %s (%s) has no Ethernet address: only Ethernet interfaces can be attached", n.name, n.kind)
	}
	return n, nil
}

// peerLink returns the other end of a veth pair, nil if it is in another
// network namespace.
func (n *nic) peerLink() netlink.Link {
	if n.kind != "veth" || n.peerNS >= 0 || n.peer <= 0 {
		return nil
	}
	l, err := netlink.LinkByIndex(n.peer)
	if err != nil {
		return nil
	}
	return l
}

// peerName describes the other end of a veth pair for a message.
func (n *nic) peerName() string {
	if l := n.peerLink(); l != nil {
		return l.Attrs().Name
	}
	return "its other end, in another network namespace,"
}

// nativeMTUError says whose MTU the driver finds too large for native XDP. For
// veth it is the other end's, for that is what this end receives.
func (n *nic) nativeMTUError() error {
	limit := maxNativeMTU()
	if n.kind != "veth" {
		return fmt.Errorf("interface %s: %w for native XDP: it is %d; run `ip link set %s mtu 1500`, or attach with --mode generic",
			n.name, ErrMTU, n.mtu, n.name)
	}
	if l := n.peerLink(); l != nil {
		return fmt.Errorf("interface %s: %w for native XDP: %s, its other end, has %d and may have at most %d; run `ip link set %s mtu %d`, or attach with --mode generic",
			n.name, ErrMTU, l.Attrs().Name, l.Attrs().MTU, limit, l.Attrs().Name, min(limit, 1500))
	}
	return fmt.Errorf("interface %s: %w for native XDP: its other end, in another network namespace, may have at most %d; run `ip link set NIC mtu %d` there, or attach with --mode generic",
		n.name, ErrMTU, limit, min(limit, 1500))
}

// Room that a frame shares its memory with (include/uapi/linux/bpf.h,
// include/linux/skbuff.h).
const (
	xdpHeadroom    = 256 // XDP_PACKET_HEADROOM
	skbSharedInfo  = 320 // sizeof(struct skb_shared_info), cache-line aligned, MAX_SKB_FRAGS 17
	ethernetHeader = 14
	vlanTag        = 4
)

// MaxMTU returns the largest MTU whose frames, with one VLAN tag, fit a UMEM
// frame of frameSize bytes behind the headroom that the kernel keeps for XDP.
// Frames that do not fit are dropped by the kernel, so a port must refuse a
// NIC with a larger MTU.
func MaxMTU(frameSize int) int {
	return max(0, FrameRoom(frameSize)-ethernetHeader-vlanTag)
}

// maxNativeMTU is veth's limit for native XDP: frame, headroom and
// skb_shared_info in one page (veth_xdp_set in drivers/net/veth.c). Other
// drivers have similar ones.
func maxNativeMTU() int {
	return os.Getpagesize() - xdpHeadroom - skbSharedInfo - ethernetHeader
}

// rxQueues returns how many RX queues the interface uses now.
func (n *nic) rxQueues() int {
	if q, err := ethtoolRXChannels(n.name); err == nil && q > 0 {
		return q
	}
	// Not every driver reports channels. A sysfs may belong to another network
	// namespace than the caller's, hence the comparison of the index.
	dir := filepath.Join("/sys/class/net", n.name)
	if index, err := os.ReadFile(filepath.Join(dir, "ifindex")); err == nil &&
		strings.TrimSpace(string(index)) == strconv.Itoa(n.ifindex) {
		if queues, err := filepath.Glob(filepath.Join(dir, "queues", "rx-*")); err == nil && len(queues) > 0 {
			return len(queues)
		}
	}
	return 1
}

// ethtoolChannels is struct ethtool_channels (include/uapi/linux/ethtool.h).
type ethtoolChannels struct {
	cmd                                         uint32
	maxRX, maxTX, maxOther, maxCombined         uint32
	rxCount, txCount, otherCount, combinedCount uint32
}

// ifreqData is struct ifreq with a pointer (include/uapi/linux/if.h).
type ifreqData struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [24 - unsafe.Sizeof(uintptr(0))]byte
}

func ethtoolRXChannels(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	ch := ethtoolChannels{cmd: unix.ETHTOOL_GCHANNELS}
	req := ifreqData{data: unsafe.Pointer(&ch)}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	runtime.KeepAlive(&ch)
	if errno != 0 {
		return 0, os.NewSyscallError("ioctl ETHTOOL_GCHANNELS", errno)
	}
	return int(ch.rxCount + ch.combinedCount), nil
}
