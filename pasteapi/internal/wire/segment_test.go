package wire

import (
	"encoding/binary"
	"net"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/pastenet/paste/internal/inetsum"
)

// tcpPacket builds a TCP segment; an independent library writes the headers.
func tcpPacket(t testing.TB, v6 bool, vlan int, options, payload int, sums bool) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}}
	tcp := &layers.TCP{SrcPort: 40000, DstPort: 80, Seq: 0xfffffff0, ACK: true, Window: 100}
	if options > 0 {
		tcp.Options = []layers.TCPOption{{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: make([]byte, 8)}}
	}
	proto := layers.EthernetTypeIPv4
	var ip gopacket.SerializableLayer = &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: layers.IPProtocolTCP,
		SrcIP: net.IP{10, 0, 0, 2}, DstIP: net.IP{10, 0, 0, 1}}
	if v6 {
		proto = layers.EthernetTypeIPv6
		ip = &layers.IPv6{Version: 6, NextHeader: layers.IPProtocolTCP, HopLimit: 64,
			SrcIP: net.ParseIP("fd00::2"), DstIP: net.ParseIP("fd00::1")}
	}
	stack := []gopacket.SerializableLayer{eth}
	eth.EthernetType = proto
	if vlan > 0 {
		eth.EthernetType = layers.EthernetTypeDot1Q
		stack = append(stack, &layers.Dot1Q{VLANIdentifier: uint16(vlan), Type: proto})
	}
	qt.Assert(t, qt.IsNil(tcp.SetNetworkLayerForChecksum(ip.(gopacket.NetworkLayer))))
	body := make([]byte, payload)
	for i := range body {
		body[i] = byte(i * 7)
	}
	stack = append(stack, ip, tcp, gopacket.Payload(body))
	buf := gopacket.NewSerializeBuffer()
	qt.Assert(t, qt.IsNil(gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: sums}, stack...)))
	return append([]byte(nil), buf.Bytes()...)
}

func TestParse(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, vlan := range []int{0, 5} {
			f := tcpPacket(t, v6, vlan, 1, 100, true)
			f = append(f, 0, 0, 0) // Ethernet padding
			var s Segment
			qt.Assert(t, qt.IsTrue(s.Parse(f)))
			qt.Check(t, qt.Equals(s.Seq, uint32(0xfffffff0)))
			qt.Check(t, qt.Equals(s.End-s.Payload, 100))
			qt.Check(t, qt.Equals(s.End, len(f)-3))
			qt.Check(t, qt.Equals(f[s.Payload+1], 7))
		}
	}
}

// TestParseRefuses cuts and bends packets: none may lead outside of its frame.
func TestParseRefuses(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		good := tcpPacket(t, v6, 0, 1, 40, true)
		var s Segment
		for n := range good {
			qt.Check(t, qt.IsFalse(s.Parse(good[:n])), qt.Commentf("%d bytes", n))
		}
		qt.Assert(t, qt.IsTrue(s.Parse(good)))
		whole := s
		proto := 14 + 9 // where the IP header names TCP
		if v6 {
			proto = 14 + 6
		}
		for i := range good {
			for _, v := range []byte{0, 1, 0x0f, 0x7f, 0xff} {
				bent := append([]byte(nil), good...)
				bent[i] = v
				ok := s.Parse(bent)
				at := qt.Commentf("byte %d is %#x instead of %#x", i, v, good[i])
				switch {
				case v == good[i], i < 12, i >= whole.Payload: // addresses of Ethernet, payload
					qt.Check(t, qt.Equals(ok, true), at)
					qt.Check(t, qt.Equals(s.Payload, whole.Payload), at)
					qt.Check(t, qt.Equals(s.End, whole.End), at)
				case i == 12, i == 13, i == 14 && !v6, i == proto: // EtherType, version and length of IPv4's header, TCP
					qt.Check(t, qt.Equals(ok, false), at)
				}
				if ok {
					qt.Check(t, qt.IsTrue(s.Payload < s.End && s.End <= len(bent)), qt.Commentf("%v, %v, %v", s.Payload, s.End, len(bent)))
				}
			}
		}
	}
}

func TestPartialChecksum(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, payload := range []int{1, 2, 7, 100, 1001} {
			f := tcpPacket(t, v6, 0, 0, payload, true)
			var s Segment
			qt.Assert(t, qt.IsTrue(s.Parse(f)))
			qt.Check(t, qt.IsFalse(s.PartialChecksum(f)))

			// A sender with checksum offload leaves the sum of the pseudo header.
			sum := f[s.L4+TCPCsumOffset:]
			var pseudo uint64
			addrs := f[s.L3+12 : s.L3+20]
			if v6 {
				addrs = f[s.L3+8 : s.L3+40]
			}
			for i := 0; i < len(addrs); i += 2 {
				pseudo += uint64(binary.BigEndian.Uint16(addrs[i:]))
			}
			binary.BigEndian.PutUint16(sum, inetsum.Fold(pseudo+6+uint64(s.End-s.L4)))
			qt.Check(t, qt.IsTrue(s.PartialChecksum(f)))
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(tcpPacket(f, false, 0, 1, 10, true))
	f.Add(tcpPacket(f, true, 3, 1, 10, true))
	f.Fuzz(func(t *testing.T, frame []byte) {
		var s Segment
		if s.Parse(frame) {
			_ = frame[s.Payload:s.End]
			s.PartialChecksum(frame)
			s.Flow(frame)
		}
	})
}
