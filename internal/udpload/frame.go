package udpload

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/internal/inetsum"
)

// Where things are in a frame of ours: Ethernet, IPv4 without options, UDP.
const (
	ethSize  = 14
	ipAt     = ethSize
	udpAt    = ipAt + 20
	payload  = udpAt + 8
	arpSize  = ethSize + 28
	arpReply = 2
)

// ends are the two hosts.
type ends struct {
	mac, peerMAC [6]byte
	ip, peer     netip.AddrPort // the port of ip is that of the first client
}

// template is a frame of a request without the client's port, its payload's head and the
// checksum that these change. sum is what the checksum is of everything else.
func (e *ends) template(size int) (b []byte, sum uint64) {
	b = make([]byte, payload+size)
	copy(b, e.peerMAC[:])
	copy(b[6:], e.mac[:])
	binary.BigEndian.PutUint16(b[12:], unix.ETH_P_IP)
	ip := b[ipAt:]
	ip[0] = 0x45
	binary.BigEndian.PutUint16(ip[2:], uint16(len(b)-ipAt))
	ip[6] = 0x40 // don't fragment
	ip[8], ip[9] = 64, unix.IPPROTO_UDP
	from, to := e.ip.Addr().As4(), e.peer.Addr().As4()
	copy(ip[12:], from[:])
	copy(ip[16:], to[:])
	binary.BigEndian.PutUint16(ip[10:], ^inetsum.Fold(inetsum.Add(0, ip[:20])))
	udp := b[udpAt:]
	binary.BigEndian.PutUint16(udp[2:], e.peer.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(8+size))
	for i := headSize; i < size; i++ {
		udp[8+i] = byte(i)
	}
	sum = inetsum.Add(0, udp) + inetsum.Add(0, ip[12:20]) + unix.IPPROTO_UDP + uint64(8+size)
	return b, sum
}

// complete writes what differs from frame to frame.
func complete(b []byte, sum uint64, port uint16, id uint64, flags byte) {
	udp := b[udpAt:]
	binary.BigEndian.PutUint16(udp, port)
	binary.BigEndian.PutUint64(udp[8:], id)
	udp[8+FlagsAt] = flags
	sum += uint64(port) + id>>48 + id>>32&0xffff + id>>16&0xffff + id&0xffff + uint64(flags)<<8
	check := ^inetsum.Fold(sum)
	if check == 0 {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], check)
}

// answer reads a datagram for one of n clients. Its checksum is the kernel's, which
// leaves it to a veth to fill in.
func (e *ends) answer(b []byte, n int) (client int, body []byte, ok bool) {
	if len(b) < payload || b[ipAt] != 0x45 || b[ipAt+9] != unix.IPPROTO_UDP || binary.BigEndian.Uint16(b[12:]) != unix.ETH_P_IP {
		return 0, nil, false
	}
	udp := b[udpAt:]
	size := int(binary.BigEndian.Uint16(udp[4:]))
	client = int(binary.BigEndian.Uint16(udp[2:])) - int(e.ip.Port())
	from := e.peer.Addr().As4()
	ok = [4]byte(b[ipAt+12:]) == from && binary.BigEndian.Uint16(udp) == e.peer.Port() &&
		client >= 0 && client < n && size >= 8 && size <= len(udp)
	if !ok {
		return 0, nil, false
	}
	return client, udp[8:size], true
}

// arp makes of a request for our address the answer to it, as no kernel answers here.
func (e *ends) arp(b []byte) (reply []byte, ok bool) {
	if len(b) < arpSize || binary.BigEndian.Uint16(b[12:]) != unix.ETH_P_ARP || b[ethSize+7] != 1 {
		return nil, false
	}
	ours := e.ip.Addr().As4()
	a := b[ethSize:]
	if [4]byte(a[24:]) != ours {
		return nil, false
	}
	reply = make([]byte, arpSize)
	copy(reply, b[6:12])
	copy(reply[6:], e.mac[:])
	copy(reply[12:], b[12:ethSize+7]) // protocol, and of what kind the addresses are
	r := reply[ethSize:]
	r[7] = arpReply
	copy(r[8:], e.mac[:])
	copy(r[14:], ours[:])
	copy(r[18:], a[8:18]) // who has asked
	return reply, true
}
