package bpf

import (
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// vlanDevice is a VLAN (802.1Q) device.
type vlanDevice struct {
	Index int // of the interface
	ID    int // number in the tag
}

// vlansOn returns the VLAN devices on an interface, in this network namespace.
func vlansOn(ifindex int) ([]vlanDevice, error) {
	var links []netlink.Link
	for range 5 {
		var err error
		if links, err = netlink.LinkList(); err == nil {
			break
		}
		// Some link changed meanwhile; what the last attempt saw will do.
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, err
		}
	}
	var vlans []vlanDevice
	for _, l := range links {
		// A device whose NIC is in another namespace has the NIC's number there.
		if v, ok := l.(*netlink.Vlan); ok && v.ParentIndex == ifindex && v.NetNsID < 0 &&
			v.VlanProtocol == netlink.VLAN_PROTOCOL_8021Q && v.VlanId < 4096 {
			vlans = append(vlans, vlanDevice{v.Index, v.VlanId})
		}
	}
	return vlans, nil
}

// vlanTable says on which VLAN a connection is.
type vlanTable struct {
	byIndex map[int]int        // VLAN number by index of the device
	byAddr  map[netip.Addr]int // the same by the device's addresses
}

func newVLANTable(vlans []vlanDevice) (*vlanTable, error) {
	t := &vlanTable{byIndex: map[int]int{}, byAddr: map[netip.Addr]int{}}
	if len(vlans) == 0 {
		return t, nil
	}
	for _, v := range vlans {
		t.byIndex[v.Index] = v.ID
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	for _, a := range addrs {
		if id, ok := t.byIndex[a.LinkIndex]; ok {
			if ip, ok := netip.AddrFromSlice(a.IP); ok {
				t.byAddr[ip.Unmap()] = id
			}
		}
	}
	return t, nil
}

// of returns the number of the VLAN that a connection is on, 0 for none: that of the
// device which its socket is bound to, or which has its local address.
func (t *vlanTable) of(local netip.Addr, device int) int {
	if t == nil {
		return 0
	}
	if id, ok := t.byIndex[device]; ok {
		return id
	}
	if local.IsLinkLocalUnicast() {
		return 0 // many devices have the same; this is the NIC's
	}
	return t.byAddr[local.Unmap()]
}

// HasVLANs says whether there are VLANs on the NIC, as of the last Configure.
func (s *Steer) HasVLANs() bool {
	t := s.vlans.Load()
	return t != nil && len(t.byIndex) > 0
}
