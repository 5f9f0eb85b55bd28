package pasteapi_test

import (
	"errors"
	"net"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/ringapp"
	"github.com/pastenet/paste/internal/testkernel"
	"github.com/pastenet/paste/pasteapi"
	"github.com/vishvananda/netlink"
)

// What a VLAN device on the NIC receives comes in there: in place where the frame
// has the VLAN's tag, and by copy where the NIC has taken it off, as a veth does with
// what its other end has not put into the frame.
func TestVLAN(t *testing.T) {
	for name, tagged := range map[string]bool{"tag in the frame": true, "tag taken off": false} {
		t.Run(name, func(t *testing.T) { testVLAN(t, tagged) })
	}
}

func testVLAN(t *testing.T, tagged bool) {
	testkernel.SkipWithout(t, "VLAN_8021Q")
	l := newLab(t, netlab.Config{})
	vlan := func(dev, addr string) func() error {
		return func() error {
			parent, err := netlink.LinkByName(dev)
			if err != nil {
				return err
			}
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.ParentIndex = "pa.7", parent.Attrs().Index
			v := &netlink.Vlan{LinkAttrs: attrs, VlanId: 7}
			if err := netlink.LinkAdd(v); err != nil {
				return err
			}
			a, err := netlink.ParseAddr(addr)
			if err != nil {
				return err
			}
			return errors.Join(netlink.AddrAdd(v, a), netlink.LinkSetUp(v))
		}
	}
	qt.Assert(t, qt.IsNil(l.InServer(vlan(l.ServerDev, "10.78.0.1/24"))))
	qt.Assert(t, qt.IsNil(l.InClient(vlan(l.ClientDev, "10.78.0.2/24"))))
	if tagged {
		qt.Assert(t, qt.IsNil(l.InClient(func() error { return netlab.TagFrames(l.ClientDev) })))
	}
	addr := net.JoinHostPort("10.78.0.1", "7000")
	a := new(ringapp.App).Start(t, l, pasteapi.Options{NIC: l.ServerDev, Pool: newPool(t, 64<<20), Copybreak: -1}, addr)
	// As in a place where only the VLAN's network is meant.
	qt.Assert(t, qt.IsNil(a.BindToDevice("pa.7")))
	qt.Assert(t, qt.IsNil(roundTrip(dial(t, l, addr), random(4<<20, 1), 64_000)))
	st := a.Port.Status()
	if tagged {
		qt.Check(t, qt.IsTrue(st.Stats.SteeredBytes > 2<<20), qt.Commentf("%+v", st))
	} else {
		qt.Check(t, qt.IsTrue(st.Stats.CopiedBytes+st.Stats.ReadBytes > 2<<20), qt.Commentf("%+v", st))
	}
}

// The NIC is in a VRF, and so is the application's socket.
func TestVRF(t *testing.T) {
	testkernel.SkipWithout(t, "NET_VRF")
	l := newLab(t, netlab.Config{})
	const vrf = "pavrf"
	qt.Assert(t, qt.IsNil(l.InServer(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = vrf
		if err := netlink.LinkAdd(&netlink.Vrf{LinkAttrs: attrs, Table: 10}); err != nil {
			return err
		}
		master, err := netlink.LinkByName(vrf)
		if err != nil {
			return err
		}
		nic, err := netlink.LinkByName(l.ServerDev)
		if err != nil {
			return err
		}
		// The lab's route to its subnet is in the main table.
		return errors.Join(netlink.LinkSetUp(master), netlink.LinkSetMasterByIndex(nic, master.Attrs().Index),
			netlink.RouteAdd(&netlink.Route{LinkIndex: nic.Attrs().Index, Table: 10, Scope: netlink.SCOPE_LINK,
				Dst: &net.IPNet{IP: net.IP{10, 77, 0, 0}, Mask: net.CIDRMask(24, 32)}}))
	})))
	// The NIC's address is no local one for a socket that is in no VRF yet.
	a := new(ringapp.App).Start(t, l, pasteapi.Options{NIC: l.ServerDev, Pool: newPool(t, 64<<20), Copybreak: -1}, "0.0.0.0:7000")
	addr := net.JoinHostPort(l.ServerIP4.String(), "7000")
	qt.Assert(t, qt.IsNil(a.BindToDevice(vrf)))
	qt.Assert(t, qt.IsNil(roundTrip(dial(t, l, addr), random(4<<20, 1), 64_000)))
	st := a.Port.Status().Stats
	qt.Check(t, qt.IsTrue(st.SteeredBytes > 2<<20), qt.Commentf("%+v", st))
}
