package pasteapi

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/pastenet/paste/bpf"
	"golang.org/x/sys/unix"
)

// Sizes and offsets of wire headers (include/uapi/linux/if_ether.h, ip.h,
// ipv6.h, tcp.h).
const (
	ethHeader  = 14
	vlanHeader = 4
	ip4Header  = 20
	ip6Header  = 40
	tcpHeader  = 20

	ethIPv4  = 0x0800
	ethIPv6  = 0x86dd
	ethVLAN  = 0x8100
	ethQinQ  = 0x88a8
	protoTCP = 6

	tcpCsumOffset = 16 // of the checksum in the TCP header
	tcpPSH        = 0x08
	tcpACK        = 0x10
)

// flow4 and flow6 are the two ends of a connection as they stand in a received
// packet, in network byte order: source is the peer.
type flow4 struct {
	addrs uint64 // source, destination
	ports uint32 // source, destination
}

type flow6 struct {
	addrs [32]byte
	ports uint32
}

// segment is what a TCP segment's headers say.
type segment struct {
	l3      int // offset of the IP header in the frame
	l4      int // offset of the TCP header
	payload int // offset of the payload
	end     int // end of the payload; Ethernet padding may follow
	v6      bool
	seq     uint32
}

// parse reads the headers of a frame that the steering program let through. It
// checks every length again, because what it says is used to index memory.
func (s *segment) parse(f []byte) bool {
	if len(f) < ethHeader+ip4Header+tcpHeader {
		return false
	}
	at := ethHeader
	proto := binary.BigEndian.Uint16(f[12:])
	if proto == ethVLAN || proto == ethQinQ {
		proto = binary.BigEndian.Uint16(f[16:])
		at += vlanHeader
	}
	s.l3 = at
	switch proto {
	case ethIPv4:
		if len(f) < at+ip4Header+tcpHeader || f[at] != 0x45 || f[at+9] != protoTCP {
			return false
		}
		s.v6 = false
		s.l4 = at + ip4Header
		s.end = at + int(binary.BigEndian.Uint16(f[at+2:]))
	case ethIPv6:
		if len(f) < at+ip6Header+tcpHeader || f[at+6] != protoTCP {
			return false
		}
		s.v6 = true
		s.l4 = at + ip6Header
		s.end = s.l4 + int(binary.BigEndian.Uint16(f[at+4:]))
	default:
		return false
	}
	s.payload = s.l4 + int(f[s.l4+12]>>4)*4
	s.seq = binary.BigEndian.Uint32(f[s.l4+4:])
	return s.payload >= s.l4+tcpHeader && s.payload < s.end && s.end <= len(f)
}

func (s *segment) flow4(f []byte) flow4 {
	return flow4{
		addrs: binary.NativeEndian.Uint64(f[s.l3+12:]),
		ports: binary.NativeEndian.Uint32(f[s.l4:]),
	}
}

func (s *segment) flow6(f []byte) flow6 {
	return flow6{
		addrs: [32]byte(f[s.l3+8 : s.l3+40]),
		ports: binary.NativeEndian.Uint32(f[s.l4:]),
	}
}

// flow is the connection's entry in the order of segments.
func (s *segment) flow(f []byte) bpf.Flow {
	if s.v6 {
		return bpf.FlowOf(f[s.l3+8:s.l3+40], f[s.l4:])
	}
	return bpf.FlowOf(f[s.l3+12:s.l3+20], f[s.l4:])
}

// partialChecksum says whether the TCP checksum covers the pseudo header only,
// which is what a local sender with checksum offload leaves (CHECKSUM_PARTIAL,
// include/linux/skbuff.h).
//
// A complete checksum looks the same once in 65536 times. Nothing in the frame
// tells the two apart: that of an undamaged segment would verify over the payload,
// and is accepted either way; that of a damaged one does not, as a partial one
// does not. So behind a veth with a wire at its other end one damaged segment in
// 65536 passes for good, which is what gets past TCP's checksum anyway.
func (s *segment) partialChecksum(f []byte) bool {
	var sum uint64
	if s.v6 {
		for i := s.l3 + 8; i < s.l3+40; i += 4 {
			sum += uint64(binary.BigEndian.Uint32(f[i:]))
		}
	} else {
		sum = uint64(binary.BigEndian.Uint32(f[s.l3+12:])) + uint64(binary.BigEndian.Uint32(f[s.l3+16:]))
	}
	sum += protoTCP + uint64(s.end-s.l4)
	return fold(sum) == binary.BigEndian.Uint16(f[s.l4+tcpCsumOffset:])
}

// fold is the ones'-complement sum in 16 bits (RFC 1071).
func fold(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// sum16 is the unfolded sum of an even number of bytes.
func sum16(b []byte) uint64 {
	var sum uint64
	for ; len(b) >= 2; b = b[2:] {
		sum += uint64(binary.BigEndian.Uint16(b))
	}
	return sum
}

// flows finds the connection that a received packet belongs to.
type flows struct {
	v4 map[flow4]*conn
	v6 map[flow6]*conn
}

func newFlows() flows {
	return flows{v4: map[flow4]*conn{}, v6: map[flow6]*conn{}}
}

func (t *flows) find(s *segment, f []byte) *conn {
	if s.v6 {
		return t.v6[s.flow6(f)]
	}
	return t.v4[s.flow4(f)]
}

func (t *flows) add(c *conn) {
	if c.peer.Addr().Is4() {
		t.v4[key4(c.peer, c.local)] = c
	} else {
		t.v6[key6(c.peer, c.local)] = c
	}
}

// remove reports whether c was there: a new connection may have the addresses and
// ports of one that was closed without Unregister.
func (t *flows) remove(c *conn) bool {
	if c.peer.Addr().Is4() {
		k := key4(c.peer, c.local)
		if t.v4[k] == c {
			delete(t.v4, k)
			return true
		}
		return false
	}
	k := key6(c.peer, c.local)
	if t.v6[k] == c {
		delete(t.v6, k)
		return true
	}
	return false
}

func ports(src, dst netip.AddrPort) uint32 {
	var b [4]byte
	binary.BigEndian.PutUint16(b[0:], src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	return binary.NativeEndian.Uint32(b[:])
}

func key4(src, dst netip.AddrPort) flow4 {
	var b [8]byte
	s, d := src.Addr().As4(), dst.Addr().As4()
	copy(b[0:], s[:])
	copy(b[4:], d[:])
	return flow4{addrs: binary.NativeEndian.Uint64(b[:]), ports: ports(src, dst)}
}

func key6(src, dst netip.AddrPort) flow6 {
	k := flow6{ports: ports(src, dst)}
	s, d := src.Addr().As16(), dst.Addr().As16()
	copy(k.addrs[0:], s[:])
	copy(k.addrs[16:], d[:])
	return k
}

// flowEntry is segment.flow of what the peer sends.
func (c *conn) flowEntry() bpf.Flow {
	addrs := append(c.peer.Addr().AsSlice(), c.local.Addr().AsSlice()...)
	var p [4]byte
	binary.BigEndian.PutUint16(p[0:], c.peer.Port())
	binary.BigEndian.PutUint16(p[2:], c.local.Port())
	return bpf.FlowOf(addrs, p[:])
}

// addrPort reads a socket address; an IPv4 address inside IPv6 counts as IPv4,
// which is what is on the wire.
func addrPort(sa unix.Sockaddr) (netip.AddrPort, error) {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)), nil
	default:
		return netip.AddrPort{}, fmt.Errorf("address of type %T: %w", sa, ErrNotSocket)
	}
}
