package netmap

import "encoding/binary"

// Frames that never were on a wire, as those over a veth, may come with a partial
// checksum: the field holds the sum of the pseudo-header alone, and the kernel knows
// beside the frame that the rest is to be added. A raw port sees the frame only.

const (
	ethHeader = 14
	etIPv4    = 0x0800
	etIPv6    = 0x86DD
	etVLAN    = 0x8100
	etQinQ    = 0x88A8
	protoTCP  = 6
	protoUDP  = 17
)

// partialChecksum says where a TCP or UDP checksum begins and is stored, if it may be
// partial. Of a frame whose checksum is complete and only looks so, a sum that is
// computed anew is the same.
func partialChecksum(f []byte) (start, offset int, ok bool) {
	l3 := ethHeader
	if len(f) < l3+20 {
		return 0, 0, false
	}
	proto := binary.BigEndian.Uint16(f[12:])
	for (proto == etVLAN || proto == etQinQ) && len(f) >= l3+24 {
		proto = binary.BigEndian.Uint16(f[l3+2:])
		l3 += 4
	}
	var l4, length int
	var kind byte
	var addrs []byte
	switch ip := f[l3:]; {
	case proto == etIPv4 && ip[0]>>4 == 4 && binary.BigEndian.Uint16(ip[6:])&0x3fff == 0:
		header := int(ip[0]&15) * 4
		l4, length, kind, addrs = l3+header, int(binary.BigEndian.Uint16(ip[2:]))-header, ip[9], ip[12:20]
	case proto == etIPv6 && len(ip) >= 40:
		l4, length, kind, addrs = l3+40, int(binary.BigEndian.Uint16(ip[4:])), ip[6], ip[8:40]
	default:
		return 0, 0, false
	}
	switch kind {
	case protoTCP:
		offset = 16
	case protoUDP:
		offset = 6
	default:
		return 0, 0, false
	}
	if length < offset+2 || l4+offset+2 > len(f) {
		return 0, 0, false
	}
	sum := uint32(kind) + uint32(length)
	for ; len(addrs) > 0; addrs = addrs[2:] {
		sum += uint32(addrs[0])<<8 | uint32(addrs[1])
	}
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return l4, offset, binary.BigEndian.Uint16(f[l4+offset:]) == uint16(sum)
}
