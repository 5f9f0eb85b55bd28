package tests

import (
	"encoding/binary"
	"fmt"
	"net"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// rawLink sends frames that this file makes, and no kernel would, from the lab's
// client to its server. Its source address belongs to nobody, so that no kernel
// answers what comes back; the server believes that it is the client's NIC.
type rawLink struct {
	fd       int // packet socket on the client's device
	dev      int
	src, dst net.HardwareAddr
	from, to [4]byte
	in       chan []byte // IP packets for `from`
	done     chan struct{}
}

func newRawLink(t *testing.T, l *netlab.Lab) *rawLink {
	t.Helper()
	r := &rawLink{from: l.ClientIP4.As4(), to: l.ServerIP4.As4(), in: make(chan []byte, 4096), done: make(chan struct{})}
	r.from[3] = 99
	qt.Assert(t, qt.IsNil(l.InClient(func() error {
		nic, err := netlink.LinkByName(l.ClientDev)
		if err != nil {
			return err
		}
		r.dev, r.src = nic.Attrs().Index, nic.Attrs().HardwareAddr
		const ip = unix.ETH_P_IP>>8 | unix.ETH_P_IP&0xff<<8
		if r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, ip); err != nil {
			return err
		}
		return unix.SetsockoptTimeval(r.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
	})))
	qt.Assert(t, qt.IsNil(l.InServer(func() error {
		nic, err := netlink.LinkByName(l.ServerDev)
		if err != nil {
			return err
		}
		r.dst = nic.Attrs().HardwareAddr
		return netlink.NeighSet(&netlink.Neigh{LinkIndex: nic.Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: r.from[:], HardwareAddr: r.src})
	})))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.receive()
	}()
	t.Cleanup(func() {
		close(r.done)
		<-ended
		qt.Check(t, qt.IsNil(unix.Close(r.fd)))
	})
	return r
}

func (r *rawLink) receive() {
	buf := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(r.fd, buf, 0)
		select {
		case <-r.done:
			return
		default:
		}
		if err != nil || n < 54 || [4]byte(buf[30:34]) != r.from {
			continue
		}
		select {
		case r.in <- append([]byte(nil), buf[14:n]...):
		default: // nobody listens
		}
	}
}

func (r *rawLink) send(frame []byte) error {
	err := unix.Sendto(r.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: r.dev})
	if err != nil {
		return fmt.Errorf("send frame: %w", err)
	}
	return nil
}

// tcpFlags, RFC 9293.
const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
)

// segment is a TCP segment, right or wrong.
type segment struct {
	sport, dport uint16
	seq, ack     uint32
	flags        byte
	tsval, tsecr uint32
	noTimestamp  bool
	payload      []byte
	breakSum     bool // wrong TCP checksum
	breakIP      bool // wrong IP checksum
	foreign      bool // to another MAC address
	cut          int  // bytes that the frame has less than it says
	pad          int  // and more
	syn          bool // with the options of a SYN
}

// frame makes the frame. Its checksums are complete, as a wire's.
func (r *rawLink) frame(s segment) []byte {
	var options []byte
	if s.syn {
		options = append(options, 2, 4, 1460>>8, 1460&0xff, 4, 2, 3, 3, 7, 1) // MSS, SACK, window scale
	} else if !s.noTimestamp {
		options = append(options, 1, 1)
	}
	if !s.noTimestamp {
		options = append(options, 8, 10)
		options = binary.BigEndian.AppendUint32(options, s.tsval)
		options = binary.BigEndian.AppendUint32(options, s.tsecr)
	}
	for len(options)%4 != 0 {
		options = append(options, 1)
	}
	tcp := make([]byte, 20, 20+len(options)+len(s.payload))
	binary.BigEndian.PutUint16(tcp, s.sport)
	binary.BigEndian.PutUint16(tcp[2:], s.dport)
	binary.BigEndian.PutUint32(tcp[4:], s.seq)
	binary.BigEndian.PutUint32(tcp[8:], s.ack)
	tcp[12] = byte((20+len(options))/4) << 4
	tcp[13] = s.flags
	binary.BigEndian.PutUint16(tcp[14:], 0xff00)
	tcp = append(append(tcp, options...), s.payload...)

	ip := make([]byte, 20, 20+len(tcp))
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(tcp)))
	copy(ip[12:], r.from[:])
	copy(ip[16:], r.to[:])
	binary.BigEndian.PutUint16(ip[10:], ^checksum(0, ip))
	if s.breakIP {
		ip[10] ^= 0x10
	}
	pseudo := checksum(uint32(unix.IPPROTO_TCP+len(tcp)), ip[12:20])
	sum := ^checksum(uint32(pseudo), tcp)
	for s.breakSum {
		// One that looks as if the sender had left it to be filled in is
		// believed on a veth.
		if sum ^= 0x0101; sum != pseudo {
			break
		}
		sum ^= 0x1010
	}
	binary.BigEndian.PutUint16(tcp[16:], sum)

	dst := append(net.HardwareAddr(nil), r.dst...)
	if s.foreign {
		dst[5] ^= 1
	}
	f := append(append(append([]byte{}, dst...), r.src...), unix.ETH_P_IP>>8, unix.ETH_P_IP&0xff)
	f = append(append(f, ip...), tcp...)
	f = append(f, make([]byte, s.pad)...)
	return f[:len(f)-s.cut]
}
