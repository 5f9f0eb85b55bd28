package pasteapi_test

import (
	"net"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// rawSender sends segments of a connection of the lab's client, as frames of
// their own: the client's socket knows nothing of them.
type rawSender struct {
	fd       int // AF_PACKET, in the client's namespace
	dev      int
	src, dst net.HardwareAddr
	local    *net.TCPAddr
	remote   *net.TCPAddr
	seq, ack uint32 // what the socket sends and expects next
}

const noVLAN = -1

func newRawSender(t *testing.T, l *netlab.Lab, conn *net.TCPConn) *rawSender {
	t.Helper()
	s := &rawSender{local: conn.LocalAddr().(*net.TCPAddr), remote: conn.RemoteAddr().(*net.TCPAddr)}
	err := l.InClient(func() error {
		link, err := netlink.LinkByName(l.ClientDev)
		if err != nil {
			return err
		}
		s.dev, s.src = link.Attrs().Index, link.Attrs().HardwareAddr
		neighs, err := netlink.NeighList(s.dev, unix.AF_INET)
		if err != nil {
			return err
		}
		for _, n := range neighs {
			if n.IP.Equal(s.remote.IP) {
				s.dst = n.HardwareAddr
			}
		}
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { unix.Close(s.fd) })
	s.seq, s.ack = sequence(t, conn)
	return s
}

// send sends a segment with a payload that begins at seq.
func (s *rawSender) send(vid int, seq uint32, payload []byte) error {
	eth := &layers.Ethernet{SrcMAC: s.src, DstMAC: s.dst, EthernetType: layers.EthernetTypeIPv4}
	stack := []gopacket.SerializableLayer{eth}
	if vid != noVLAN {
		eth.EthernetType = layers.EthernetTypeDot1Q
		stack = append(stack, &layers.Dot1Q{VLANIdentifier: uint16(vid), Type: layers.EthernetTypeIPv4})
	}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: s.local.IP.To4(), DstIP: s.remote.IP.To4()}
	tcp := &layers.TCP{SrcPort: layers.TCPPort(s.local.Port), DstPort: layers.TCPPort(s.remote.Port),
		Seq: seq, Ack: s.ack, ACK: true, PSH: true, Window: 1000}
	tcp.SetNetworkLayerForChecksum(ip)
	b := gopacket.NewSerializeBuffer()
	o := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(b, o, append(stack, ip, tcp, gopacket.Payload(payload))...); err != nil {
		return err
	}
	return unix.Sendto(s.fd, b.Bytes(), 0, &unix.SockaddrLinklayer{Ifindex: s.dev})
}

// sequence returns the numbers of the next byte that the connection sends and
// expects, by putting the socket into repair mode for a moment
// (include/uapi/linux/tcp.h, TCP_REPAIR).
func sequence(t *testing.T, conn *net.TCPConn) (seq, ack uint32) {
	const (
		recvQueue = 1
		sendQueue = 2
	)
	raw, err := conn.SyscallConn()
	qt.Assert(t, qt.IsNil(err))
	err = raw.Control(func(p uintptr) {
		fd := int(p)
		set := func(opt, value int) {
			qt.Assert(t, qt.IsNil(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, opt, value)))
		}
		get := func() uint32 {
			n, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
			qt.Assert(t, qt.IsNil(err))
			return uint32(n)
		}
		set(unix.TCP_REPAIR, 1)
		set(unix.TCP_REPAIR_QUEUE, sendQueue)
		seq = get()
		set(unix.TCP_REPAIR_QUEUE, recvQueue)
		ack = get()
		set(unix.TCP_REPAIR, -1) // off, without a window probe
	})
	qt.Assert(t, qt.IsNil(err))
	return seq, ack
}
