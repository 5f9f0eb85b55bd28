// Package wire reads the headers of received TCP segments.
package wire

import (
	"encoding/binary"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/internal/inetsum"
)

// Sizes and offsets of wire headers (include/uapi/linux/if_ether.h, ip.h,
// ipv6.h, tcp.h).
const (
	EthHeader  = 14
	EthType    = 12 // offset of the type, or of a VLAN tag before it
	vlanHeader = 4
	ip4Header  = 20
	ip6Header  = 40
	TCPHeader  = 20

	EthIPv4  = 0x0800
	EthIPv6  = 0x86dd
	ethVLAN  = 0x8100
	ethQinQ  = 0x88a8
	ProtoTCP = 6

	TCPFlags      = 13 // offset of the flags in the TCP header
	TCPCsumOffset = 16 // of the checksum
	TCPPSH        = 0x08
	TCPACK        = 0x10
)

// Segment is what a TCP segment's headers say. Offsets count from the start of
// the frame, in bytes.
type Segment struct {
	L3      int // IP header
	L4      int // TCP header
	Payload int
	End     int // end of the payload; Ethernet padding may follow
	V6      bool
	Seq     uint32
}

// Parse reads the headers of a frame that the steering program let through. It
// checks every length again, because what it says is used to index memory.
func (s *Segment) Parse(f []byte) bool {
	if len(f) < EthHeader+ip4Header+TCPHeader {
		return false
	}
	at := EthHeader
	proto := binary.BigEndian.Uint16(f[12:])
	if proto == ethVLAN || proto == ethQinQ {
		proto = binary.BigEndian.Uint16(f[16:])
		at += vlanHeader
	}
	s.L3 = at
	switch proto {
	case EthIPv4:
		if len(f) < at+ip4Header+TCPHeader || f[at] != 0x45 || f[at+9] != ProtoTCP {
			return false
		}
		s.V6 = false
		s.L4 = at + ip4Header
		s.End = at + int(binary.BigEndian.Uint16(f[at+2:]))
	case EthIPv6:
		if len(f) < at+ip6Header+TCPHeader || f[at+6] != ProtoTCP {
			return false
		}
		s.V6 = true
		s.L4 = at + ip6Header
		s.End = s.L4 + int(binary.BigEndian.Uint16(f[at+4:]))
	default:
		return false
	}
	s.Payload = s.L4 + int(f[s.L4+12]>>4)*4
	s.Seq = binary.BigEndian.Uint32(f[s.L4+4:])
	return s.Payload >= s.L4+TCPHeader && s.Payload < s.End && s.End <= len(f)
}

// Len is the size of the payload, bytes.
func (s *Segment) Len() int { return s.End - s.Payload }

// Addrs are the bytes of the source and the destination address.
func (s *Segment) Addrs(f []byte) []byte {
	if s.V6 {
		return f[s.L3+8 : s.L3+40]
	}
	return f[s.L3+12 : s.L3+20]
}

// Flow is the connection's entry in the order of segments.
func (s *Segment) Flow(f []byte) bpf.Flow { return bpf.FlowOf(s.Addrs(f), f[s.L4:]) }

// PartialChecksum says whether the TCP checksum covers the pseudo header only,
// which is what a local sender with checksum offload leaves (CHECKSUM_PARTIAL,
// include/linux/skbuff.h).
//
// A complete checksum looks the same once in 65536 times. Nothing in the frame
// tells the two apart: that of an undamaged segment would verify over the payload,
// and is accepted either way; that of a damaged one does not, as a partial one
// does not. So behind a veth with a wire at its other end one damaged segment in
// 65536 passes for good, which is what gets past TCP's checksum anyway.
func (s *Segment) PartialChecksum(f []byte) bool {
	var sum uint64
	if s.V6 {
		for i := s.L3 + 8; i < s.L3+40; i += 4 {
			sum += uint64(binary.BigEndian.Uint32(f[i:]))
		}
	} else {
		sum = uint64(binary.BigEndian.Uint32(f[s.L3+12:])) + uint64(binary.BigEndian.Uint32(f[s.L3+16:]))
	}
	sum += ProtoTCP + uint64(s.End-s.L4)
	return inetsum.Fold(sum) == binary.BigEndian.Uint16(f[s.L4+TCPCsumOffset:])
}
