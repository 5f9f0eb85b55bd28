package pasteapi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"unsafe"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/testwait"
	"golang.org/x/sys/unix"
)

// sendMerged sends a payload that the kernel cuts into datagrams, and that a loopback
// hands over as one.
func sendMerged(t testing.TB, c *net.UDPConn, to netip.AddrPort, payload []byte, each int) {
	t.Helper()
	ctl := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&ctl[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(ctl[unix.SizeofCmsghdr:], uint16(each))
	_, _, err := c.WriteMsgUDPAddrPort(payload, ctl, to)
	qt.Assert(t, qt.IsNil(err))
}

// TestUDPMerged: from a sender of many datagrams they are received merged, and come one
// in a slot all the same, with their addresses, also where there are more than slots; and who
// has the socket next reads datagrams that are not merged.
func TestUDPMerged(t *testing.T) {
	for _, c := range []struct{ bound, from, to string }{
		{"127.0.0.1:0", "127.0.0.1:0", "127.0.0.1"}, {"0.0.0.0:0", "127.0.0.1:0", "127.0.0.3"}, {"[::]:0", "[::1]:0", "::1"},
	} {
		t.Run(c.bound, func(t *testing.T) {
			r, _ := newTestRing(t)
			fd, local := udpSocket(t, r, c.bound)
			local = netip.AddrPortFrom(netip.MustParseAddr(c.to), local.Port())
			peer, from := udpPeer(t, c.from)
			receive := func(want int) (got [][]byte) {
				for len(got) < want {
					_, err := r.Poll(testwait.Patience)
					qt.Assert(t, qt.IsNil(err))
					for seg := range r.Segments() {
						qt.Assert(t, qt.Equals(seg.Peer(), from))
						qt.Assert(t, qt.Equals(seg.Local(), local))
						got = append(got, bytes.Clone(seg.Payload()))
					}
				}
				return got
			}
			conn := r.conns.Find(fd)
			for i := 0; conn.dgram != nil && !conn.dgram.Merged(); i++ {
				qt.Assert(t, qt.IsTrue(i < 1000))
				for range 50 {
					_, err := peer.WriteToUDPAddrPort([]byte("datagram"), local)
					qt.Assert(t, qt.IsNil(err))
				}
				receive(50)
			}
			// 40 messages of up to 30 datagrams, the last of each shorter.
			var want [][]byte
			for m := range 40 {
				var payload []byte
				count := 1 + m%30
				for i := range count {
					one := bytes.Repeat(fmt.Appendf(nil, "%02d %02d ", m, i), 20)
					if i == count-1 {
						one = one[:7]
					}
					payload, want = append(payload, one...), append(want, one)
				}
				sendMerged(t, peer, local, payload, 120)
			}
			before := r.count().Syscalls
			got := receive(len(want))
			qt.Assert(t, qt.DeepEquals(got, want))
			qt.Check(t, qt.IsTrue(r.count().Syscalls-before < uint64(len(want))/2), qt.Commentf("system calls for %d datagrams", len(want)))

			sendMerged(t, peer, local, bytes.Repeat([]byte("x"), 30), 10) // lost with the registration
			qt.Assert(t, qt.IsNil(r.Unregister(fd)))
			sendMerged(t, peer, local, bytes.Repeat([]byte("y"), 30), 10)
			b := make([]byte, 100)
			for range 3 {
				n, _, err := unix.Recvfrom(fd, b, 0)
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(string(b[:n]), "yyyyyyyyyy"))
			}
		})
	}
}
