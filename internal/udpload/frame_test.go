package udpload

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

var testEnds = ends{
	mac: [6]byte{2, 0, 0, 0, 0, 1}, peerMAC: [6]byte{2, 0, 0, 0, 0, 2},
	ip: netip.MustParseAddrPort("10.0.0.1:20000"), peer: netip.MustParseAddrPort("10.0.0.2:8080"),
}

// TestTemplate: a frame is what others, too, take for a datagram with right checksums.
func TestTemplate(t *testing.T) {
	for _, size := range []int{MinSize, 17, 64, 1024, MaxSize} {
		b, sum := testEnds.template(size)
		complete(b, sum, 20003, 0x0123456789abcdef, WantAnswer)
		p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
		qt.Assert(t, qt.IsNil(p.ErrorLayer()))
		udp := p.TransportLayer().(*layers.UDP)
		qt.Assert(t, qt.IsNil(udp.SetNetworkLayerForChecksum(p.NetworkLayer())))
		wrong, bad := p.VerifyChecksums()
		qt.Assert(t, qt.IsNil(wrong))
		qt.Check(t, qt.HasLen(bad, 0), qt.Commentf("%d bytes", size))
		qt.Check(t, qt.Equals(udp.SrcPort, 20003))
		qt.Check(t, qt.Equals(udp.DstPort, 8080))
		qt.Check(t, qt.HasLen(udp.Payload, size))
		qt.Check(t, qt.Equals(binary.BigEndian.Uint64(udp.Payload), 0x0123456789abcdef))
		qt.Check(t, qt.Equals(udp.Payload[FlagsAt], WantAnswer))

		_, _, ok := testEnds.answer(b, 10)
		qt.Check(t, qt.IsFalse(ok)) // it comes from us
		back := ends{ip: testEnds.peer, peer: netip.MustParseAddrPort("10.0.0.1:20003")}
		client, body, ok := back.answer(b, 1)
		qt.Assert(t, qt.IsTrue(ok))
		qt.Check(t, qt.Equals(client, 0))
		qt.Check(t, qt.HasLen(body, size))
		for n := range b {
			back.answer(b[:n], 1)
		}
	}
}

// TestARP: who asks for our address is told it.
func TestARP(t *testing.T) {
	asker := gopacket.NewSerializeBuffer()
	mac := []byte{2, 0, 0, 0, 0, 2}
	ask := func(ip []byte) []byte {
		qt.Assert(t, qt.IsNil(gopacket.SerializeLayers(asker, gopacket.SerializeOptions{},
			&layers.Ethernet{SrcMAC: mac, DstMAC: []byte{255, 255, 255, 255, 255, 255}, EthernetType: layers.EthernetTypeARP},
			&layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
				Operation: layers.ARPRequest, SourceHwAddress: mac, SourceProtAddress: []byte{10, 0, 0, 2}, DstHwAddress: make([]byte, 6), DstProtAddress: ip})))
		return asker.Bytes()
	}
	_, ok := testEnds.arp(ask([]byte{10, 0, 0, 9}))
	qt.Check(t, qt.IsFalse(ok))
	b, ok := testEnds.arp(ask([]byte{10, 0, 0, 1}))
	qt.Assert(t, qt.IsTrue(ok))
	arp := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeARP).(*layers.ARP)
	qt.Check(t, qt.Equals(arp.Operation, layers.ARPReply))
	qt.Check(t, qt.DeepEquals(arp.SourceHwAddress, testEnds.mac[:]))
	qt.Check(t, qt.DeepEquals(arp.SourceProtAddress, []byte{10, 0, 0, 1}))
	qt.Check(t, qt.DeepEquals(arp.DstHwAddress, mac))
	qt.Check(t, qt.DeepEquals(arp.DstProtAddress, []byte{10, 0, 0, 2}))
}
