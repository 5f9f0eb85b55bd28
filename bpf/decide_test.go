package bpf

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/go-quicktest/qt"
	"github.com/gopacket/gopacket/layers"
)

// BPF_PROG_TEST_RUN has no AF_XDP socket, so a packet that would be steered
// ends as pass_no_socket: it was ours, and passes when nobody receives it.
const wouldSteer = "pass_no_socket"

var decisions = []struct {
	name string
	p    *packet
	want string
}{
	{"v4 data", segment(nil), wouldSteer},
	{"v4 one byte", segment(func(p *packet) { p.payload = 1 }), wouldSteer},
	{"v4 full frame", segment(func(p *packet) { p.payload = 1448; p.tcpOpts = true }), wouldSteer},
	{"v4 one byte, padded to Ethernet's minimum", segment(func(p *packet) { p.payload = 1; p.padding = 5 }), wouldSteer},
	{"v4 TCP options", segment(func(p *packet) { p.tcpOpts = true }), wouldSteer},
	{"v4 VLAN", segment(func(p *packet) { p.vlans = 1 }), wouldSteer},
	{"v4 VLAN, the last one", segment(func(p *packet) { p.vlans, p.vid = 1, 4094 }), wouldSteer},
	{"v4 priority tag", segment(func(p *packet) { p.vlans, p.srcPort, p.mangle = 1, 4000, put16Tag(5<<13) }), wouldSteer},
	{"v4 VLAN of another connection", segment(func(p *packet) { p.vlans, p.srcPort = 1, 4000 }), "pass_vlan"},
	{"v4 VLAN, and the NIC has taken the tag off", segment(func(p *packet) { p.srcPort = 4000 + ourVLAN }), "pass_vlan"},
	{"v6 VLAN, and the NIC has taken the tag off", segment(func(p *packet) { p.v6, p.srcPort = true, 4000+ourVLAN }), "pass_vlan"},
	{"v4 VLAN and priority", segment(func(p *packet) { p.vlans, p.mangle = 1, put16Tag(7<<13|1<<12|ourVLAN) }), wouldSteer},
	{"v4 FIN with data", segment(func(p *packet) { p.flags = func(t *layers.TCP) { t.FIN = true } }), wouldSteer},
	{"v4 ECN bits", segment(func(p *packet) { p.flags = func(t *layers.TCP) { t.ECE, t.CWR = true, true } }), wouldSteer},
	{"v6 data", segment(func(p *packet) { p.v6 = true }), wouldSteer},
	{"v6 VLAN, TCP options", segment(func(p *packet) { p.v6, p.vlans, p.tcpOpts = true, 1, true }), wouldSteer},
	{"v6 FIN with data", segment(func(p *packet) { p.v6 = true; p.flags = func(t *layers.TCP) { t.FIN = true } }), wouldSteer},

	{"v4 other port", segment(func(p *packet) { p.port = 22 }), "pass_port"},
	{"v4 port with swapped bytes", segment(func(p *packet) { p.port = ourPort>>8 | ourPort&0xff<<8 }), "pass_port"},
	{"v6 other port", segment(func(p *packet) { p.v6 = true; p.port = 22 }), "pass_port"},

	{"v4 another peer's port", segment(func(p *packet) { p.srcPort = 4001 }), "pass_conn"},
	{"v4 another local address", segment(func(p *packet) { p.dstIP = net.IP{10, 77, 0, 3} }), "pass_conn"},
	{"v4 VLAN, another local address", segment(func(p *packet) { p.vlans, p.dstIP = 1, net.IP{10, 77, 0, 3} }), "pass_conn"},
	{"v6 another peer's port", segment(func(p *packet) { p.v6, p.srcPort = true, 4001 }), "pass_conn"},
	{"v6 another local address", segment(func(p *packet) { p.v6, p.dstIP = true, net.ParseIP("fd00::3") }), "pass_conn"},
	{"v6 another peer", segment(func(p *packet) { p.v6, p.srcIP = true, net.ParseIP("fd00::1:2") }), "pass_conn"},

	{"v4 SYN", segment(func(p *packet) { p.payload = 0; p.flags = func(t *layers.TCP) { t.SYN, t.ACK = true, false } }), "pass_control"},
	{"v4 SYN with data", segment(func(p *packet) { p.flags = func(t *layers.TCP) { t.SYN, t.ACK = true, false } }), "pass_control"},
	{"v4 pure ACK", segment(func(p *packet) { p.payload = 0 }), "pass_control"},
	{"v4 pure ACK, TCP options", segment(func(p *packet) { p.payload = 0; p.tcpOpts = true }), "pass_control"},
	{"v4 pure ACK, padded to Ethernet's minimum", segment(func(p *packet) { p.payload = 0; p.padding = 6 }), "pass_control"},
	{"v4 FIN", segment(func(p *packet) { p.payload = 0; p.flags = func(t *layers.TCP) { t.FIN = true } }), "pass_control"},
	{"v4 RST", segment(func(p *packet) { p.payload = 0; p.flags = func(t *layers.TCP) { t.RST = true } }), "pass_control"},
	{"v4 RST with data", segment(func(p *packet) { p.flags = func(t *layers.TCP) { t.RST = true } }), "pass_control"},
	{"v4 URG", segment(func(p *packet) { p.flags = func(t *layers.TCP) { t.URG, t.Urgent = true, 1 } }), "pass_control"},
	{"v6 pure ACK", segment(func(p *packet) { p.v6 = true; p.payload = 0 }), "pass_control"},

	{"v4 as large as the MTU", segment(func(p *packet) { p.payload = 1460 }), "pass_no_socket"},
	{"v4 as large as the MTU, VLAN", segment(func(p *packet) { p.payload, p.vlans = 1460, 1 }), "pass_no_socket"},
	{"v6 as large as the MTU, VLAN", segment(func(p *packet) { p.v6, p.payload, p.vlans = true, 1440, 1 }), "pass_no_socket"},
	{"v4 larger than any frame", segment(func(p *packet) { p.payload = 1465 }), "pass_large"},
	{"v6 of a sender that leaves cutting to its interface", segment(func(p *packet) { p.v6, p.payload = true, 3000 }), "pass_large"},

	{"v4 first fragment", segment(func(p *packet) { p.moreFrag = true }), "pass_fragment"},
	{"v4 later fragment", segment(func(p *packet) { p.frag = 100 }), "pass_fragment"},
	{"v4 options", segment(func(p *packet) { p.ipOpts = true }), "pass_options"},
	{"v6 extension header", segment(func(p *packet) { p.v6, p.extHdr = true, true }), "pass_options"},
	{"v6 UDP", segment(func(p *packet) { p.v6, p.udp = true, true }), "pass_options"},
	{"v4 UDP", segment(func(p *packet) { p.udp = true }), "pass_not_tcp"},
	{"ARP", segment(func(p *packet) { p.arp = true }), "pass_not_tcp"},
	{"two VLAN tags", segment(func(p *packet) { p.vlans = 2 }), "pass_not_tcp"},

	{"v4 VLAN that the host is not in", segment(func(p *packet) { p.vlans, p.vid = 1, 11 }), "pass_vlan"},
	{"v6 VLAN that the host is not in", segment(func(p *packet) { p.v6, p.vlans, p.vid = true, 1, 4095 }), "pass_vlan"},
	{"v4 VLAN, 802.1ad", segment(func(p *packet) {
		p.vlans = 1
		p.mangle = func(b []byte, _, _ int) []byte { binary.BigEndian.PutUint16(b[12:], 0x88a8); return b }
	}), "pass_vlan"},
	{"v4 VLAN, other MAC", segment(func(p *packet) { p.vlans, p.dst = 1, otherMAC }), "pass_address"},
	{"v4 other MAC", segment(func(p *packet) { p.dst = otherMAC }), "pass_address"},
	{"v4 broadcast MAC", segment(func(p *packet) { p.dst = layers.EthernetBroadcast }), "pass_address"},
	{"v4 injected, in generic mode", segment(func(p *packet) { p.src = net.HardwareAddr{2, 'p', 1, 0, 0, 0} }), "pass_injected"},

	{"v4 total length beyond the frame", segment(func(p *packet) { p.mangle = put16(2, 0, 2000) }), "pass_malformed"},
	{"v4 total length below the header", segment(func(p *packet) { p.mangle = put16(2, 0, 19) }), "pass_malformed"},
	{"v4 total length ends in the TCP header", segment(func(p *packet) { p.mangle = put16(2, 0, 39) }), "pass_malformed"},
	{"v4 version 5", segment(func(p *packet) {
		p.mangle = func(b []byte, ip, _ int) []byte { b[ip] = 0x55; return b }
	}), "pass_options"},
	{"v6 payload length beyond the frame", segment(func(p *packet) { p.v6 = true; p.mangle = put16(4, 0, 2000) }), "pass_malformed"},
	{"v6 payload length zero", segment(func(p *packet) { p.v6 = true; p.mangle = put16(4, 0, 0) }), "pass_malformed"},
	{"v6 version 4", segment(func(p *packet) {
		p.v6 = true
		p.mangle = func(b []byte, ip, _ int) []byte { b[ip] = 0x40; return b }
	}), "pass_malformed"},
	{"TCP data offset 16", segment(func(p *packet) {
		p.mangle = func(b []byte, _, tcp int) []byte { b[tcp+12] = 4 << 4; return b }
	}), "pass_malformed"},
	{"TCP data offset beyond the segment", segment(func(p *packet) {
		p.payload = 10
		p.mangle = func(b []byte, _, tcp int) []byte { b[tcp+12] = 15 << 4; return b }
	}), "pass_malformed"},
	{"cut in the IP header", segment(func(p *packet) {
		p.mangle = func(b []byte, ip, _ int) []byte { return b[:ip+10] }
	}), "pass_malformed"},
	{"cut in the TCP header", segment(func(p *packet) {
		p.mangle = func(b []byte, _, tcp int) []byte { return b[:tcp+19] }
	}), "pass_malformed"},
	{"cut in the VLAN tag", segment(func(p *packet) {
		p.vlans = 1
		p.mangle = func(b []byte, ip, _ int) []byte { return b[:ip-2] }
	}), "pass_malformed"},
}

// put16 overwrites two bytes of the IP header.
func put16(at, _ int, v uint16) func([]byte, int, int) []byte {
	return func(b []byte, ip, _ int) []byte {
		binary.BigEndian.PutUint16(b[ip+at:], v)
		return b
	}
}

// put16Tag overwrites the tag's priority and number.
func put16Tag(tci uint16) func([]byte, int, int) []byte {
	return func(b []byte, _, _ int) []byte {
		binary.BigEndian.PutUint16(b[14:], tci)
		return b
	}
}

// addOurConns adds the connections that plain segments belong to: on no VLAN, and on
// those of ours.
func addOurConns(t *testing.T, s *Steer) {
	t.Helper()
	s.vlans.Store(&vlanTable{byIndex: map[int]int{1: ourVLAN, 2: 4094}})
	for device, vlan := range []uint16{0, ourVLAN, 4094} {
		for local, peer := range map[string]string{"10.77.0.1": "10.77.0.2", "fd00::1": "fd00::2"} {
			from, to := netip.AddrPortFrom(netip.MustParseAddr(peer), 4000+vlan), netip.AddrPortFrom(netip.MustParseAddr(local), ourPort)
			qt.Assert(t, qt.IsNil(s.AddConn(from, to, device, 0)))
		}
	}
}

// TestVLANOf says by which VLAN a connection is expected.
func TestVLANOf(t *testing.T) {
	a := netip.MustParseAddr
	table := &vlanTable{byIndex: map[int]int{7: 70, 8: 80}, byAddr: map[netip.Addr]int{a("10.0.0.1"): 70, a("fd00::1"): 80}}
	for _, c := range []struct {
		local  string
		device int
		want   int
	}{
		{"10.0.0.1", 0, 70}, {"::ffff:10.0.0.1", 0, 70}, {"10.0.0.2", 0, 0}, {"fd00::1", 0, 80},
		{"10.0.0.1", 8, 80}, {"10.0.0.2", 7, 70}, {"10.0.0.1", 99, 70}, // 99 may be a VRF
		{"fe80::1", 7, 70}, {"fe80::1", 2, 0},
	} {
		qt.Check(t, qt.Equals(table.of(a(c.local), c.device), c.want), qt.Commentf("%+v", c))
	}
}

// TestDecisions runs the program on frames, without a NIC.
func TestDecisions(t *testing.T) {
	var objs steerObjects
	qt.Assert(t, qt.IsNil(loadSteerObjects(&objs, nil)))
	defer objs.Close()
	s := &Steer{maps: objs.steerMaps}
	qt.Assert(t, qt.IsNil(s.configure(&nic{name: "none", mac: ourMAC}, 1518, 1)))
	qt.Assert(t, qt.IsNil(s.AddPort(ourPort, 0)))
	addOurConns(t, s)
	var cfg steerNicConfig
	qt.Assert(t, qt.IsNil(s.maps.SteerConfig.Lookup(uint32(0), &cfg)))
	qt.Assert(t, qt.Equals(cfg.Vlans, [64]uint64{1}))
	cfg.Vlans[ourVLAN/64] |= 1 << (ourVLAN % 64)
	cfg.Vlans[63] |= 1 << 62
	qt.Assert(t, qt.IsNil(s.maps.SteerConfig.Put(uint32(0), cfg)))

	for _, d := range decisions {
		t.Run(d.name, func(t *testing.T) {
			before, err := s.Counters()
			qt.Assert(t, qt.IsNil(err))
			in := d.p.build(t)
			verdict, out := runXDP(t, objs.PasteSteer, in)
			qt.Check(t, qt.Equals(verdict, xdpPass))
			qt.Check(t, qt.DeepEquals(out, in), qt.Commentf("the frame was changed"))

			after, err := s.Counters()
			qt.Assert(t, qt.IsNil(err))
			before[d.want]++
			qt.Assert(t, qt.DeepEquals(after, before))
		})
	}

	decision := func(name string) uint64 {
		t.Helper()
		before, err := s.Counters()
		qt.Assert(t, qt.IsNil(err))
		runXDP(t, objs.PasteSteer, segment(nil).build(t))
		after, err := s.Counters()
		qt.Assert(t, qt.IsNil(err))
		return after[name] - before[name]
	}
	t.Run("removed connection", func(t *testing.T) {
		peer, local := netip.MustParseAddrPort("10.77.0.2:4000"), netip.MustParseAddrPort("10.77.0.1:8080")
		qt.Assert(t, qt.IsNil(s.RemoveConn(peer, local)))
		qt.Assert(t, qt.IsNil(s.RemoveConn(peer, local)))
		qt.Assert(t, qt.Equals(decision("pass_conn"), 1))
		addOurConns(t, s)
		qt.Assert(t, qt.Equals(decision(wouldSteer), 1))
		qt.Assert(t, qt.IsNil(s.resetConns()))
		qt.Assert(t, qt.Equals(decision("pass_conn"), 1))
	})
	t.Run("another ring", func(t *testing.T) {
		peer, local := netip.MustParseAddrPort("10.77.0.2:4000"), netip.MustParseAddrPort("10.77.0.1:8080")
		qt.Assert(t, qt.IsNil(s.configure(&nic{name: "none", mac: ourMAC}, 1518, 2)))
		for ring, want := range []string{wouldSteer, "pass_ring"} { // it comes on queue 0
			qt.Assert(t, qt.IsNil(s.AddConn(peer, local, 0, ring)))
			qt.Check(t, qt.Equals(decision(want), 1))
		}
	})
	t.Run("removed port", func(t *testing.T) {
		qt.Assert(t, qt.IsNil(s.RemovePort(ourPort)))
		qt.Assert(t, qt.Equals(decision("pass_port"), 1))
	})
}

func runXDP(t *testing.T, prog *ebpf.Program, in []byte) (uint32, []byte) {
	t.Helper()
	verdict, out, err := prog.Test(in)
	qt.Assert(t, qt.IsNil(err))
	return verdict, out
}
