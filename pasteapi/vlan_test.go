package pasteapi_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/pastenet/paste/internal/lab"
	"github.com/pastenet/paste/pasteapi"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestForeignVLAN continues a connection by a frame with the tag of a VLAN that
// the host is not in: as without a port, its bytes reach nobody. The number 0 in
// a tag means no VLAN, so such a frame is received.
func TestForeignVLAN(t *testing.T) {
	l := newLab(t, lab.Config{})
	addr := net.JoinHostPort(l.ServerIP4.String(), "7000")
	s := startEcho(t, l, pasteapi.Options{NIC: l.ServerDev, Pool: newPool(t, 64<<20)}, addr)
	conn := dial(t, l, addr)
	defer conn.Close()
	echo := func(want string) {
		t.Helper()
		b := make([]byte, len(want))
		_, err := io.ReadFull(conn, b)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(string(b), want))
	}
	_, err := io.WriteString(conn, "untagged")
	qt.Assert(t, qt.IsNil(err))
	echo("untagged")

	wait := func(what string, ok func(st pasteapi.Status) bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			st := s.port.Status()
			if ok(st) {
				return
			}
			qt.Assert(t, qt.IsTrue(time.Now().Before(end)), qt.Commentf("%s: %+v", what, st))
		}
	}
	qt.Assert(t, qt.IsNil(sendTagged(t, l, conn, 7, "foreign!")))
	wait("frame of VLAN 7 has arrived", func(st pasteapi.Status) bool {
		return st.Steer["pass_vlan"]+st.Steer["redirect"]+st.Steer["pass_small"] == 2
	})
	// Had it been received, the same bytes of the stream could not come again
	// with another content. The client's socket takes the echo when it has sent
	// them too.
	qt.Assert(t, qt.IsNil(sendTagged(t, l, conn, 0, "priority")))
	wait("frame with a priority is received", func(st pasteapi.Status) bool {
		return st.Stats.DeliveredBytes+st.Stats.StrayBytes >= 16
	})
	_, err = io.WriteString(conn, "priority")
	qt.Assert(t, qt.IsNil(err))
	echo("priority")
}

// sendTagged sends the next bytes of a connection, as a frame of its own: the
// client's socket knows nothing of it.
func sendTagged(t *testing.T, l *lab.Lab, conn *net.TCPConn, vid uint16, payload string) error {
	return l.InClient(func() error {
		link, err := netlink.LinkByName(l.ClientDev)
		if err != nil {
			return err
		}
		neighs, err := netlink.NeighList(link.Attrs().Index, unix.AF_INET)
		if err != nil {
			return err
		}
		eth := &layers.Ethernet{SrcMAC: link.Attrs().HardwareAddr, EthernetType: layers.EthernetTypeDot1Q}
		local, remote := conn.LocalAddr().(*net.TCPAddr), conn.RemoteAddr().(*net.TCPAddr)
		for _, n := range neighs {
			if n.IP.Equal(remote.IP) {
				eth.DstMAC = n.HardwareAddr
			}
		}
		seq, ack := sequence(t, conn)
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: local.IP.To4(), DstIP: remote.IP.To4()}
		tcp := &layers.TCP{SrcPort: layers.TCPPort(local.Port), DstPort: layers.TCPPort(remote.Port),
			Seq: seq, Ack: ack, ACK: true, PSH: true, Window: 1000}
		tcp.SetNetworkLayerForChecksum(ip)
		b := gopacket.NewSerializeBuffer()
		err = gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
			eth, &layers.Dot1Q{VLANIdentifier: vid, Type: layers.EthernetTypeIPv4}, ip, tcp, gopacket.Payload(payload))
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, b.Bytes(), 0, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index})
	})
}

// sequence returns the numbers of the next byte that the connection sends and
// expects, by putting the socket into repair mode for a moment (tcp(7), TCP_REPAIR).
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
