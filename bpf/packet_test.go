package bpf

import (
	"cmp"
	"net"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// XDP verdicts (include/uapi/linux/bpf.h).
const xdpPass = 2

var (
	ourMAC   = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	otherMAC = net.HardwareAddr{2, 0, 0, 0, 0, 2}
)

const (
	ourPort = 8080
	ourVLAN = 10
)

// packet describes a frame; the zero value is nothing anybody would send.
type packet struct {
	dst      net.HardwareAddr
	src      net.HardwareAddr // if not otherMAC
	vlans    int
	vid      uint16 // of the first tag, if not the one that the host is in
	v6       bool
	dstIP    net.IP
	srcIP    net.IP         // of IPv6
	srcPort  layers.TCPPort // if not that of a connection of ours
	frag     uint16
	moreFrag bool
	ipOpts   bool
	extHdr   bool
	udp      bool
	arp      bool
	port     uint16
	flags    func(*layers.TCP)
	tcpOpts  bool
	payload  int
	padding  int
	mangle   func(frame []byte, ip, tcp int) []byte
}

// segment is a plain data segment for us; f changes it.
func segment(f func(*packet)) *packet {
	p := &packet{dst: ourMAC, port: ourPort, payload: 100, dstIP: net.IP{10, 77, 0, 1}}
	if f != nil {
		f(p)
	}
	if p.v6 && p.dstIP.To4() != nil {
		p.dstIP = net.ParseIP("fd00::1")
	}
	if p.v6 && p.srcIP == nil {
		p.srcIP = net.ParseIP("fd00::2")
	}
	return p
}

func (p *packet) build(t *testing.T) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: otherMAC, DstMAC: p.dst}
	if p.src != nil {
		eth.SrcMAC = p.src
	}
	stack := []gopacket.SerializableLayer{eth}
	next := &eth.EthernetType
	ip := 14
	vid := cmp.Or(p.vid, ourVLAN)
	srcPort := layers.TCPPort(4000)
	if p.vlans > 0 {
		srcPort += layers.TCPPort(vid) // that of the connection on the VLAN
	}
	for i := range p.vlans {
		*next = layers.EthernetTypeDot1Q
		tag := &layers.Dot1Q{VLANIdentifier: vid + uint16(i)}
		next = &tag.Type
		stack = append(stack, tag)
		ip += 4
	}
	tcpAt := ip
	proto := layers.IPProtocolTCP
	if p.udp {
		proto = layers.IPProtocolUDP
	}
	var network gopacket.NetworkLayer
	switch {
	case p.arp:
		*next = layers.EthernetTypeARP
		stack = append(stack, &layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4,
			HwAddressSize: 6, ProtAddressSize: 4, Operation: 1, SourceHwAddress: otherMAC,
			SourceProtAddress: []byte{10, 77, 0, 2}, DstHwAddress: make([]byte, 6), DstProtAddress: p.dstIP.To4()})
	case p.v6:
		*next = layers.EthernetTypeIPv6
		ip6 := &layers.IPv6{Version: 6, NextHeader: proto, HopLimit: 64, SrcIP: p.srcIP, DstIP: p.dstIP}
		stack, network, tcpAt = append(stack, ip6), ip6, tcpAt+40
		if p.extHdr {
			ip6.NextHeader = layers.IPProtocolIPv6Destination
			ext := &layers.IPv6Destination{}
			ext.NextHeader = proto
			ext.Options = []*layers.IPv6DestinationOption{{OptionType: 1, OptionData: make([]byte, 4)}}
			stack, tcpAt = append(stack, ext), tcpAt+8
		}
	default:
		*next = layers.EthernetTypeIPv4
		ip4 := &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: net.IP{10, 77, 0, 2}, DstIP: p.dstIP, FragOffset: p.frag}
		if p.moreFrag {
			ip4.Flags = layers.IPv4MoreFragments
		}
		if p.ipOpts {
			ip4.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}} // router alert
			tcpAt += 4
		}
		stack, network, tcpAt = append(stack, ip4), ip4, tcpAt+20
	}
	switch {
	case p.arp:
	case p.udp:
		udp := &layers.UDP{SrcPort: 4000, DstPort: layers.UDPPort(p.port)}
		udp.SetNetworkLayerForChecksum(network)
		stack = append(stack, udp)
	default:
		tcp := &layers.TCP{SrcPort: cmp.Or(p.srcPort, srcPort), DstPort: layers.TCPPort(p.port), Seq: 1, Ack: 1, ACK: true, PSH: true, Window: 1000}
		if p.flags != nil {
			p.flags(tcp)
		}
		if p.tcpOpts {
			tcp.Options = []layers.TCPOption{
				{OptionType: layers.TCPOptionKindNop}, {OptionType: layers.TCPOptionKindNop},
				{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: make([]byte, 8)},
			}
		}
		tcp.SetNetworkLayerForChecksum(network)
		stack = append(stack, tcp)
	}
	if !p.arp {
		stack = append(stack, gopacket.Payload(make([]byte, p.payload)))
	}
	buf := gopacket.NewSerializeBuffer()
	qt.Assert(t, qt.IsNil(gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...)))
	frame := append(buf.Bytes(), make([]byte, p.padding)...)
	if p.mangle != nil {
		frame = p.mangle(frame, ip, tcpAt)
	}
	return frame
}
