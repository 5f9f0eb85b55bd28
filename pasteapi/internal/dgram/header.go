// Package dgram moves the datagrams of UDP sockets between sockets and slots: one
// datagram, one slot, with headers before its payload that say where it came from, or
// where it is to go.
package dgram

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"github.com/pastenet/paste/pasteapi/internal/wire"
)

// The headers before a payload are Ethernet, IP and UDP, from the start of the
// buffer on. The kernel took those of the wire, so these are made up: addresses,
// ports and lengths are right, checksums are 0, and the Ethernet header has the index
// of an interface in place of addresses, for peers that have link-local ones.
const (
	udpHeader = 8
	ip4Size   = 20
	ip6Size   = 40
	Doff4     = wire.EthHeader + ip4Size + udpHeader // where the payload begins, IPv4
	Doff6     = wire.EthHeader + ip6Size + udpHeader // and IPv6
	protoUDP  = 17
	defTTL    = 64

	ifindexAt = 2 // in the Ethernet header
)

// fields are where a header has its addresses and ports.
type fields struct {
	src, dst []byte // 4 bytes or 16
	ports    []byte // source, destination
	ifindex  []byte
	v6       bool
}

// parse finds the fields of a buffer whose payload begins at doff.
func parse(b []byte, doff int) (f fields, ok bool) {
	if doff > len(b) {
		return f, false
	}
	switch {
	case doff == Doff4 && binary.BigEndian.Uint16(b[wire.EthType:]) == wire.EthIPv4:
		ip := b[wire.EthHeader:]
		f = fields{src: ip[12:16], dst: ip[16:20], ports: ip[ip4Size:][:4]}
	case doff == Doff6 && binary.BigEndian.Uint16(b[wire.EthType:]) == wire.EthIPv6:
		ip := b[wire.EthHeader:]
		f = fields{src: ip[8:24], dst: ip[24:40], ports: ip[ip6Size:][:4], v6: true}
	default:
		return f, false
	}
	f.ifindex = b[ifindexAt:][:4]
	return f, true
}

// make writes a header for a payload of n bytes, but for addresses and ports. It
// returns where those go.
func begin(b []byte, v6 bool, n int) (f fields) {
	if v6 {
		clear(b[:wire.EthHeader])
		binary.BigEndian.PutUint16(b[wire.EthType:], wire.EthIPv6)
		ip := b[wire.EthHeader:]
		binary.BigEndian.PutUint32(ip, 6<<28)
		binary.BigEndian.PutUint16(ip[4:], uint16(udpHeader+n))
		ip[6], ip[7] = protoUDP, defTTL
		binary.BigEndian.PutUint32(ip[ip6Size+4:], uint32(udpHeader+n)<<16)
		return fields{src: ip[8:24], dst: ip[24:40], ports: ip[ip6Size:][:4], ifindex: b[ifindexAt:][:4], v6: true}
	}
	clear(b[:Doff4])
	binary.BigEndian.PutUint16(b[wire.EthType:], wire.EthIPv4)
	ip := b[wire.EthHeader:]
	ip[0] = 0x45
	binary.BigEndian.PutUint16(ip[2:], uint16(ip4Size+udpHeader+n))
	ip[8], ip[9] = defTTL, protoUDP
	binary.BigEndian.PutUint32(ip[ip4Size+4:], uint32(udpHeader+n)<<16)
	return fields{src: ip[12:16], dst: ip[16:20], ports: ip[ip4Size:][:4], ifindex: b[ifindexAt:][:4]}
}

// Addrs reads who sent a datagram, and to whom.
func Addrs(b []byte, doff int) (src, dst netip.AddrPort, ok bool) {
	f, ok := parse(b, doff)
	if !ok {
		return src, dst, false
	}
	port := func(at int) uint16 { return binary.BigEndian.Uint16(f.ports[at:]) }
	return netip.AddrPortFrom(f.addr(f.src), port(0)), netip.AddrPortFrom(f.addr(f.dst), port(2)), true
}

// addr reads an address, with its interface where that belongs to it.
func (f *fields) addr(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	a = a.Unmap()
	if i := binary.BigEndian.Uint32(f.ifindex); i != 0 && a.IsLinkLocalUnicast() && a.Is6() {
		a = a.WithZone(strconv.Itoa(int(i)))
	}
	return a
}

// SetAddrs writes a header before a payload of n bytes and returns where that begins.
// One of the addresses may be the zero AddrPort, which stands for the socket's own. v6
// has the header be one of IPv6 whatever the addresses are.
func SetAddrs(b []byte, src, dst netip.AddrPort, v6 bool, n int) (doff int) {
	v6 = v6 || src.Addr().Is6() || dst.Addr().Is6()
	f := begin(b, v6, n)
	for i, a := range []netip.AddrPort{src, dst} {
		to := [...][]byte{f.src, f.dst}[i]
		switch {
		case !a.Addr().IsValid():
			clear(to)
		case v6:
			ip := a.Addr().As16()
			copy(to, ip[:])
		default:
			ip := a.Addr().Unmap().As4()
			copy(to, ip[:])
		}
		binary.BigEndian.PutUint16(f.ports[2*i:], a.Port())
		if zone := a.Addr().Zone(); zone != "" {
			index, _ := strconv.Atoi(zone)
			binary.BigEndian.PutUint32(f.ifindex, uint32(index))
		}
	}
	if v6 {
		return Doff6
	}
	return Doff4
}

// Turn makes the sender of a datagram its receiver, and the other way round.
func Turn(b []byte, doff int) bool {
	f, ok := parse(b, doff)
	if !ok {
		return false
	}
	for i := range f.src {
		f.src[i], f.dst[i] = f.dst[i], f.src[i]
	}
	p := f.ports
	p[0], p[1], p[2], p[3] = p[2], p[3], p[0], p[1]
	return true
}
