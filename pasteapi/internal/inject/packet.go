package inject

import (
	"bytes"
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/internal/inetsum"
	"github.com/pastenet/paste/internal/tap"
	"github.com/pastenet/paste/pasteapi/internal/wire"
)

// mergeLimit is the most payload bytes of a merged packet, which as a whole must
// stay below 64 KiB.
const mergeLimit = 60 << 10

// packet is one write: a frame with a virtio header before it, and the payloads
// of the segments merged with it.
type packet struct {
	header unsafe.Pointer // the virtio header, in the frame's buffer
	len    uint32         // of the header and the frame
	more   []unix.Iovec   // further payloads

	// What decides whether a segment may be merged.
	frame   []byte // the first frame
	start   int    // of the Ethernet header in it
	seg     wire.Segment
	flow    bpf.Flow
	nextSeq uint32
	size    int // payload of every segment but the last
	total   int // payload so far
	open    bool
}

// begin makes a packet of a frame. What is to come in on the NIC again (mac is nil)
// keeps its Ethernet header but for the source. On the device the header is written
// anew in front of the IP header, so a VLAN tag disappears, as it would have on the
// VLAN's own interface. partial says that the frame may have a partial checksum.
func (p *packet) begin(f []byte, s *wire.Segment, mac *[6]byte, ticket uint32, partial bool) {
	start := 0
	if mac != nil {
		start = s.L3 - wire.EthHeader
	}
	eth := f[start:s.L3]
	copy(eth[6:8], bpf.InjectedMAC[:])
	binary.NativeEndian.PutUint32(eth[8:12], ticket)
	if mac != nil {
		copy(eth[0:6], mac[:])
		proto := uint16(wire.EthIPv4)
		if s.V6 {
			proto = wire.EthIPv6
		}
		binary.BigEndian.PutUint16(eth[wire.EthType:], proto)
	}
	h := header(unsafe.Pointer(&eth[0]))
	*h = tap.Header{}
	partial = partial && s.PartialChecksum(f)
	if partial {
		h.Flags = tap.NeedsCsum
		h.CsumStart, h.CsumOffset = uint16(s.L4-start), wire.TCPCsumOffset
	}
	p.header, p.len, p.more = unsafe.Pointer(h), uint32(VnetHeaderSize+s.End-start), p.more[:0]
	p.frame, p.start, p.seg, p.flow = f, start, *s, s.Flow(f)
	p.size = s.Len()
	p.total = p.size
	p.nextSeq = s.Seq + uint32(p.size)
	// Merging drops the checksums of the single segments. Only those that never
	// left this machine have none.
	p.open = partial && ticket != 0 && f[s.L4+wire.TCPFlags]&^(wire.TCPPSH|wire.TCPACK) == 0
}

// merge adds a segment to the one before it, as receive offload would have done
// had the frames not been taken from the NIC one by one: the kernel then does its
// work once for all of them. The rules are those of its own (tcp_gro_receive in
// net/ipv4/tcp_offload.c): same VLAN, acknowledgement, flags and options, and
// segments of one size.
func (p *packet) merge(f []byte, s *wire.Segment) bool {
	n := s.Len()
	if !p.open || s.Seq != p.nextSeq || n > p.size || p.total+n > mergeLimit || !p.alike(f, s) || !s.PartialChecksum(f) {
		return false
	}
	iov := unix.Iovec{Base: &f[s.Payload]}
	iov.SetLen(n)
	p.more = append(p.more, iov)
	p.frame[p.seg.L4+wire.TCPFlags] |= f[s.L4+wire.TCPFlags] & wire.TCPPSH
	p.total += n
	p.nextSeq += uint32(n)
	p.open = n == p.size
	return true
}

// alike says whether the headers of a segment say the same as the packet's but
// for sequence number, length and checksum.
func (p *packet) alike(f []byte, s *wire.Segment) bool {
	a, b := f[s.L4:s.Payload], p.frame[p.seg.L4:p.seg.Payload]
	return f[s.L4+wire.TCPFlags]&^(wire.TCPPSH|wire.TCPACK) == 0 &&
		len(a) == len(b) &&
		bytes.Equal(f[wire.EthType:s.L3], p.frame[wire.EthType:p.seg.L3]) && // VLAN
		f[s.L3+1] == p.frame[p.seg.L3+1] && // type of service
		bytes.Equal(a[8:12], b[8:12]) && // acknowledgement
		bytes.Equal(a[14:16], b[14:16]) && // window
		bytes.Equal(a[wire.TCPHeader:], b[wire.TCPHeader:])
}

// finish writes the headers of a merged packet.
func (p *packet) finish() {
	f, s := p.frame, &p.seg
	tcpLen := s.Payload - s.L4 + p.total
	h := (*tap.Header)(p.header)
	h.GSOSize = uint16(p.size)
	h.HdrLen = uint16(s.Payload - p.start)
	if s.V6 {
		h.GSOType = tap.GSOTCPv6
		binary.BigEndian.PutUint16(f[s.L3+4:], uint16(tcpLen))
	} else {
		h.GSOType = tap.GSOTCPv4
		binary.BigEndian.PutUint16(f[s.L3+2:], uint16(s.L4-s.L3+tcpLen))
		binary.BigEndian.PutUint16(f[s.L3+10:], 0)
		binary.BigEndian.PutUint16(f[s.L3+10:], ^inetsum.Fold(inetsum.Add(0, f[s.L3:s.L4])))
	}
	pseudo := inetsum.Add(0, s.Addrs(f)) + wire.ProtoTCP + uint64(tcpLen)
	binary.BigEndian.PutUint16(f[s.L4+wire.TCPCsumOffset:], inetsum.Fold(pseudo))
}
