package xsk

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The generic netlink family "netdev" (include/uapi/linux/netdev.h).
const (
	netdevFamily      = "netdev"
	netdevDevGet      = 1 // NETDEV_CMD_DEV_GET
	netdevIfindex     = 1 // NETDEV_A_DEV_IFINDEX
	netdevXDPFeatures = 3 // NETDEV_A_DEV_XDP_FEATURES
)

// DriverFeatures is what the driver of an interface can do with XDP.
type DriverFeatures uint64

const (
	DriverXDP      DriverFeatures = 1 << 0 // NETDEV_XDP_ACT_BASIC: native XDP
	DriverRedirect DriverFeatures = 1 << 1 // NETDEV_XDP_ACT_REDIRECT, which AF_XDP needs
	DriverZeroCopy DriverFeatures = 1 << 3 // NETDEV_XDP_ACT_XSK_ZEROCOPY
)

// ZeroCopyCapable says whether the driver of an interface of the calling thread's
// network namespace has AF_XDP zero-copy. It may still refuse it for a certain
// memory or queue. Linux 6.3 and newer can tell.
func ZeroCopyCapable(ifindex int) (bool, error) {
	f, err := Driver(ifindex)
	return f&DriverZeroCopy != 0, err
}

// Driver says what the driver of an interface of the calling thread's network namespace
// can do. Linux 6.3 and newer can tell.
func Driver(ifindex int) (DriverFeatures, error) {
	fail := func(err error) (DriverFeatures, error) {
		return 0, fmt.Errorf("look up XDP features of interface %d: %w", ifindex, err)
	}
	family, err := netlink.GenlFamilyGet(netdevFamily)
	if err != nil {
		return fail(err)
	}
	req := nl.NewNetlinkRequest(int(family.ID), 0)
	// struct genlmsghdr by hand: what nl.Genlmsg leaves in its reserved bytes the
	// kernel refuses.
	req.AddRawData([]byte{netdevDevGet, uint8(family.Version), 0, 0})
	req.AddRawData(nl.NewRtAttr(netdevIfindex, nl.Uint32Attr(uint32(ifindex))).Serialize())
	msgs, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return fail(err)
	}
	for _, m := range msgs {
		if len(m) < nl.SizeofGenlmsg {
			continue
		}
		attrs, err := nl.ParseRouteAttr(m[nl.SizeofGenlmsg:])
		if err != nil {
			return fail(err)
		}
		for _, a := range attrs {
			if a.Attr.Type == netdevXDPFeatures && len(a.Value) >= 8 {
				return DriverFeatures(binary.NativeEndian.Uint64(a.Value)), nil
			}
		}
	}
	return fail(errors.New("the kernel does not tell"))
}
