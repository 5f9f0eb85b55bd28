package xsk

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Of the generic netlink family "netdev", as in features.go.
const (
	netdevNAPIGet     = 11 // NETDEV_CMD_NAPI_GET
	netdevNAPIIfindex = 1  // NETDEV_A_NAPI_IFINDEX
)

// NAPIs is how many NAPI instances, which the kernel polls queues by, an interface of
// the calling thread's network namespace has. Linux 6.8 and newer can tell.
func NAPIs(ifindex int) (int, error) {
	fail := func(err error) (int, error) {
		return 0, fmt.Errorf("list NAPI instances of interface %d: %w", ifindex, err)
	}
	family, err := netlink.GenlFamilyGet(netdevFamily)
	if err != nil {
		return fail(err)
	}
	req := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_DUMP)
	req.AddRawData([]byte{netdevNAPIGet, uint8(family.Version), 0, 0})
	req.AddRawData(nl.NewRtAttr(netdevNAPIIfindex, nl.Uint32Attr(uint32(ifindex))).Serialize())
	msgs, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return fail(err)
	}
	return len(msgs), nil
}
