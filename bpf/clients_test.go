package bpf

import (
	"net/netip"
	"testing"

	"github.com/go-quicktest/qt"
)

// TestClientPorts: the port of a connection is steered while the connection is there,
// and not taken away from those that steer it too.
func TestClientPorts(t *testing.T) {
	var objs steerObjects
	qt.Assert(t, qt.IsNil(loadSteerObjects(&objs, nil)))
	defer objs.Close()
	s := &Steer{maps: objs.steerMaps}
	s.vlans.Store(&vlanTable{})
	ports := func(want ...uint16) {
		t.Helper()
		got, err := s.Ports()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.DeepEquals(got, want))
	}
	s.SteerClients(40000, 50000, 7)
	peer, other := netip.MustParseAddrPort("10.0.0.2:80"), netip.MustParseAddrPort("10.0.0.3:80")
	local := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port) }
	add := func(p netip.AddrPort, port uint16) {
		t.Helper()
		qt.Assert(t, qt.IsNil(s.AddConn(p, local(port), 0, 0)))
	}
	remove := func(p netip.AddrPort, port uint16) { t.Helper(); qt.Assert(t, qt.IsNil(s.RemoveConn(p, local(port)))) }

	add(peer, 39999) // nobody's choice but its owner's
	ports()
	add(peer, 40000)
	add(peer, 40000)
	add(other, 40000)
	ports(40000)
	remove(peer, 40000)
	ports(40000)
	remove(peer, 40000)
	ports(40000)
	remove(other, 40000)
	ports()

	qt.Assert(t, qt.IsNil(s.AddPort(50000, 0)))
	add(peer, 50000)
	qt.Assert(t, qt.IsNil(s.RemovePort(50000)))
	ports(50000)
	qt.Assert(t, qt.IsNil(s.AddPort(50000, 0)))
	remove(peer, 50000)
	ports(50000)
	qt.Assert(t, qt.IsNil(s.RemovePort(50000)))
	ports()

	add(peer, 45000)
	qt.Assert(t, qt.IsNil(s.Reset()))
	ports()
	remove(peer, 45000)
}
