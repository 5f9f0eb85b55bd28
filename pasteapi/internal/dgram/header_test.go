package dgram

import (
	"net/netip"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// TestHeaders: what is made up is a packet to others, too, and reads back as it was
// written.
func TestHeaders(t *testing.T) {
	for _, c := range []struct{ src, dst string }{
		{"10.0.0.1:1053", "10.0.0.2:40000"}, {"[fd00::1]:1053", "[fd00::2]:40000"}, {"[fe80::1%7]:1", "[fe80::2%7]:65535"},
	} {
		src, dst := netip.MustParseAddrPort(c.src), netip.MustParseAddrPort(c.dst)
		b := make([]byte, 200)
		for i := range b {
			b[i] = 0xff
		}
		doff := SetAddrs(b, src, dst, false, 5)
		copy(b[doff:], "hello")
		s, d, ok := Addrs(b, doff)
		qt.Assert(t, qt.IsTrue(ok))
		qt.Check(t, qt.Equals(s, src))
		qt.Check(t, qt.Equals(d, dst))
		p := gopacket.NewPacket(b[:doff+5], layers.LayerTypeEthernet, gopacket.Default)
		qt.Assert(t, qt.IsNil(p.ErrorLayer()))
		udp := p.TransportLayer().(*layers.UDP)
		qt.Check(t, qt.Equals(uint16(udp.SrcPort), src.Port()))
		qt.Check(t, qt.Equals(uint16(udp.DstPort), dst.Port()))
		qt.Check(t, qt.Equals(string(udp.Payload), "hello"))
		qt.Check(t, qt.Equals(p.NetworkLayer().NetworkFlow().Src().String(), src.Addr().WithZone("").String()))
		qt.Check(t, qt.IsTrue(Turn(b, doff)))
		s, d, _ = Addrs(b, doff)
		qt.Check(t, qt.Equals(s, dst))
		qt.Check(t, qt.Equals(d, src))
		_, _, ok = Addrs(b, doff+1)
		qt.Check(t, qt.IsFalse(ok))
	}
	b := make([]byte, 200)
	_, _, ok := Addrs(b, Doff4)
	qt.Check(t, qt.IsFalse(ok))
	_, _, ok = Addrs(b[:20], Doff4)
	qt.Check(t, qt.IsFalse(ok))
	// IPv4 addresses on a socket of IPv6.
	src := netip.MustParseAddrPort("10.0.0.1:1053")
	qt.Assert(t, qt.Equals(SetAddrs(b, src, netip.AddrPort{}, true, 0), Doff6))
	s, d, _ := Addrs(b, Doff6)
	qt.Check(t, qt.Equals(s, src))
	qt.Check(t, qt.Equals(d.Port(), 0))
}
