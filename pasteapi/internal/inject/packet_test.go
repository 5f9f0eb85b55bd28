package inject

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"unsafe"

	"github.com/go-quicktest/qt"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/internal/inetsum"
	"github.com/pastenet/paste/internal/tap"
	"github.com/pastenet/paste/pasteapi/internal/wire"
)

var tapMAC = [6]byte{2, 9, 9, 9, 9, 9}

// frame is a received frame with room for the virtio header before it, and with
// the partial checksum of a local sender.
func frame(t *testing.T, v6 bool, seq uint32, payload []byte, psh bool) ([]byte, wire.Segment) {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}}
	tcp := &layers.TCP{SrcPort: 40000, DstPort: 80, Seq: seq, Ack: 77, ACK: true, PSH: psh, Window: 100}
	eth.EthernetType = layers.EthernetTypeIPv4
	var ip gopacket.SerializableLayer = &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: layers.IPProtocolTCP,
		SrcIP: net.IP{10, 0, 0, 2}, DstIP: net.IP{10, 0, 0, 1}}
	if v6 {
		eth.EthernetType = layers.EthernetTypeIPv6
		ip = &layers.IPv6{Version: 6, NextHeader: layers.IPProtocolTCP, HopLimit: 64,
			SrcIP: net.ParseIP("fd00::2"), DstIP: net.ParseIP("fd00::1")}
	}
	qt.Assert(t, qt.IsNil(tcp.SetNetworkLayerForChecksum(ip.(gopacket.NetworkLayer))))
	buf := gopacket.NewSerializeBuffer()
	qt.Assert(t, qt.IsNil(gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		eth, ip, tcp, gopacket.Payload(payload))))
	f := append(make([]byte, VnetHeaderSize), buf.Bytes()...)[VnetHeaderSize:]
	var s wire.Segment
	qt.Assert(t, qt.IsTrue(s.Parse(f)))
	pseudo := inetsum.Add(0, s.Addrs(f)) + wire.ProtoTCP + uint64(s.End-s.L4)
	binary.BigEndian.PutUint16(f[s.L4+wire.TCPCsumOffset:], inetsum.Fold(pseudo))
	return f, s
}

// written is what goes to the device for a packet, without the virtio header.
func written(p *packet) []byte {
	b := bytes.Clone(unsafe.Slice((*byte)(p.header), p.len)[VnetHeaderSize:])
	for _, iov := range p.more {
		b = append(b, unsafe.Slice(iov.Base, iov.Len)...)
	}
	return b
}

// TestMerge: consecutive segments become one packet that an independent library
// reads as a valid one, with the ticket in its source address.
func TestMerge(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		var p packet
		f, s := frame(t, v6, 1000, bytes.Repeat([]byte("a"), 100), false)
		p.begin(f, &s, &tapMAC, 0x00070005, true)
		want := bytes.Repeat([]byte("a"), 100)
		for i, n := range []int{100, 100, 30} {
			body := bytes.Repeat([]byte{byte('b' + i)}, n)
			f, s := frame(t, v6, uint32(1000+len(want)), body, n == 30)
			qt.Assert(t, qt.IsTrue(p.merge(f, &s)))
			want = append(want, body...)
		}
		f, s = frame(t, v6, uint32(1000+len(want)), []byte("behind a short one"), false)
		qt.Check(t, qt.IsFalse(p.merge(f, &s)))
		p.finish()
		h := (*tap.Header)(p.header)
		qt.Check(t, qt.Equals(h.GSOSize, 100))
		qt.Check(t, qt.Equals(h.Flags, tap.NeedsCsum))

		parsed := gopacket.NewPacket(written(&p), layers.LayerTypeEthernet, gopacket.Default)
		qt.Assert(t, qt.IsNil(parsed.ErrorLayer()))
		eth := parsed.LinkLayer().(*layers.Ethernet)
		qt.Check(t, qt.Equals(eth.DstMAC.String(), net.HardwareAddr(tapMAC[:]).String()))
		qt.Check(t, qt.Equals(binary.NativeEndian.Uint32(eth.SrcMAC[2:]), 0x00070005))
		tcp := parsed.TransportLayer().(*layers.TCP)
		qt.Check(t, qt.IsTrue(bytes.Equal(tcp.Payload, want)), qt.Commentf("%d bytes, want %d", len(tcp.Payload), len(want)))
		qt.Check(t, qt.Equals(tcp.Seq, 1000))
		qt.Check(t, qt.IsTrue(tcp.PSH))
		if ip, ok := parsed.NetworkLayer().(*layers.IPv4); ok {
			qt.Check(t, qt.Equals(inetsum.Fold(inetsum.Add(0, ip.Contents)), 0xffff))
			qt.Check(t, qt.Equals(int(ip.Length), 20+20+len(want)))
		}
	}
}

// TestMergeRefuses: what receive offload would keep apart stays apart.
func TestMergeRefuses(t *testing.T) {
	body := bytes.Repeat([]byte("x"), 50)
	for name, bend := range map[string]func(f []byte, s *wire.Segment){
		"hole":            func(f []byte, s *wire.Segment) { s.Seq++ },
		"longer":          func(f []byte, s *wire.Segment) { s.End += 10 },
		"fin":             func(f []byte, s *wire.Segment) { f[s.L4+13] |= 1 },
		"other ack":       func(f []byte, s *wire.Segment) { f[s.L4+11]++ },
		"other window":    func(f []byte, s *wire.Segment) { f[s.L4+15]++ },
		"type of service": func(f []byte, s *wire.Segment) { f[s.L3+1]++ },
		"full checksum":   func(f []byte, s *wire.Segment) { f[s.L4+16]++ },
	} {
		var p packet
		f, s := frame(t, false, 1, body, false)
		p.begin(f, &s, &tapMAC, 1, true)
		f, s = frame(t, false, 51, body, false)
		f = append(f, make([]byte, 10)...)
		bend(f, &s)
		qt.Check(t, qt.IsFalse(p.merge(f, &s)), qt.Commentf("%s", name))
	}
	// Without a ticket, and without a partial checksum, nothing is added.
	for _, c := range []struct {
		ticket  uint32
		partial bool
	}{{0, true}, {1, false}} {
		var p packet
		f, s := frame(t, false, 1, body, false)
		p.begin(f, &s, &tapMAC, c.ticket, c.partial)
		f, s = frame(t, false, 51, body, false)
		qt.Check(t, qt.IsFalse(p.merge(f, &s)), qt.Commentf("%+v", c))
	}
}

// TestOnNIC: what comes in on the NIC again is the received frame, with its VLAN,
// and segments of different VLANs stay apart.
func TestOnNIC(t *testing.T) {
	tagged := func(seq uint32, vid byte) ([]byte, wire.Segment) {
		f, _ := frame(t, false, seq, []byte("payload"), false)
		b := append(make([]byte, VnetHeaderSize), f[:12]...)
		b = append(append(b, 0x81, 0, 0, vid), f[12:]...)[VnetHeaderSize:]
		var s wire.Segment
		qt.Assert(t, qt.IsTrue(s.Parse(b)))
		return b, s
	}
	var p packet
	f, s := tagged(1, 7)
	want := bytes.Clone(f)
	p.begin(f, &s, nil, 0x00070005, true)
	same, ss := tagged(8, 7)
	other, os := tagged(8, 8)
	qt.Check(t, qt.IsFalse(p.merge(other, &os)))
	h := (*tap.Header)(p.header)
	qt.Check(t, qt.Equals(int(h.CsumStart), s.L4))
	got := written(&p)
	qt.Check(t, qt.Equals(string(got[:6]), string(want[:6])))
	qt.Check(t, qt.Equals(string(got[6:8]), string(bpf.InjectedMAC[:])))
	qt.Check(t, qt.Equals(binary.NativeEndian.Uint32(got[8:12]), 0x00070005))
	qt.Check(t, qt.Equals(string(got[12:]), string(want[12:])))
	qt.Check(t, qt.IsTrue(p.merge(same, &ss)))
	p.finish()
	qt.Check(t, qt.Equals(int(h.HdrLen), s.Payload))
}

// TestKeyOfAnotherBatch: a key is good for its own batch only, however many have
// gone since.
func TestKeyOfAnotherBatch(t *testing.T) {
	f, s := frame(t, false, 1, []byte("x"), false)
	for _, serial := range []uint64{1, 1 << 32, 1<<32 + 7} {
		j := &Injector{batch: make([]packet, 0, Size), serial: serial}
		qt.Check(t, qt.IsFalse(j.Merge(Key{}, f, &s)))
		qt.Check(t, qt.IsFalse(j.Merge(Key{serial: serial - 1, index: 400}, f, &s)))
	}
}
