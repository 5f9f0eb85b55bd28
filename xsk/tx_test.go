package xsk_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/internal/testkernel"
	"github.com/pastenet/paste/xsk"
)

// TestTxBudget counts how many descriptors one system call takes.
func TestTxBudget(t *testing.T) {
	const queued = 100
	for _, want := range []int{0, 64, 128, 100_000} {
		t.Run(fmt.Sprint(want), func(t *testing.T) {
			if want != 0 {
				testkernel.SkipBefore(t, "6.17", "XDP_MAX_TX_SKB_BUDGET")
			}
			budget := 32 // the kernel's own
			if want != 0 {
				budget = min(want, 128)
			}
			p := newPair(t, 1)
			u := newUmem(t, anonymous(t, 128*frameSize), xsk.UmemConfig{})
			s, err := openAt(t, p.near, u, xsk.Options{TxSize: 128, TxBudget: want})
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.Equals(s.TxBudget(), budget))
			var descs []xsk.Desc
			for i := range queued {
				descs = append(descs, xsk.Desc{Addr: uint64(i) * frameSize, Len: 60})
				copy(u.Bytes(descs[i]), frame(p.far, p.near, i, 60))
			}
			qt.Assert(t, qt.Equals(s.Transmit(descs), queued))
			qt.Assert(t, qt.Equals(s.TxPending(), queued))
			qt.Assert(t, qt.Equals(s.TxFree(), 128-queued))
			err = s.KickTx()
			// Linux before 6.17, which has no other budget either, says what it has
			// taken only when it has taken all that it had seen.
			if left := s.TxPending(); want != 0 || left != queued {
				qt.Check(t, qt.Equals(left, max(0, queued-s.TxBudget())))
			}
			if queued > s.TxBudget() {
				qt.Check(t, qt.Equals(err, xsk.ErrAgain))
			} else {
				qt.Check(t, qt.IsNil(err))
			}
		})
	}
}

func TestStats(t *testing.T) {
	p := newPair(t, 1)
	u := newUmem(t, anonymous(t, 64*frameSize), xsk.UmemConfig{})
	tx, rx := mustOpen(t, p.near, 0, u), mustOpen(t, p.far, 0, u)
	steer(t, p.near, tx.Fd())
	steer(t, p.far, rx.Fd())
	descs := []xsk.Desc{
		{Addr: 0, Len: 60},                              // good, but the receiver has no frame to put it in
		{Addr: 1*frameSize + 1000, Len: frameSize},      // leaves its frame
		{Addr: uint64(len(u.Mem())) + 4096, Len: 60},    // leaves the memory
		{Addr: 2 * frameSize, Len: 60, Options: 1 << 9}, // unknown option
	}
	copy(u.Bytes(descs[0]), frame(p.far, p.near, 0, 60))
	qt.Assert(t, qt.Equals(tx.Transmit(descs), 4))
	until(t, "the kernel to take all", func() bool { kick(t, tx); return tx.TxPending() == 0 })
	st, err := tx.Stats()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(st.TxInvalidDescs, 3))
	addrs := make([]uint64, 4)
	// Newer kernels complete the invalid ones too, so they may be here as well.
	until(t, "the completion", func() bool { return tx.CompletePending() > 0 })
	qt.Check(t, qt.SliceContains(addrs[:tx.Complete(addrs)], descs[0].Addr))
	until(t, "the drop", func() bool {
		st, err := rx.Stats()
		qt.Assert(t, qt.IsNil(err))
		return st.FillRingEmpty > 0
	})
}

// TestTxChecksum sends UDP packets whose checksum field has only the pseudo-header sum to
// a socket of the kernel.
func TestTxChecksum(t *testing.T) {
	p := newPair(t, 1)
	src, dst := netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("198.18.0.2")
	var conn *net.UDPConn
	netlabtest.In(t, p.far.ns, func() {
		l, err := netlink.LinkByIndex(p.far.index)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: dst.AsSlice(), Mask: net.CIDRMask(24, 32)}})))
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(dst, 9000)))
		qt.Assert(t, qt.IsNil(err))
	})
	defer conn.Close()

	u := newUmem(t, anonymous(t, 64*frameSize), xsk.UmemConfig{TxMetadataLen: xsk.TxMetadataSize})
	s := mustOpen(t, p.near, 0, u)
	send := func(d xsk.Desc, text string, withMetadata bool) {
		b := udp(p.far.mac, p.near.mac, netip.AddrPortFrom(src, 9001), netip.AddrPortFrom(dst, 9000), text)
		d.Len = uint32(len(b))
		copy(u.Bytes(d), b)
		if withMetadata {
			u.SetTxChecksum(&d, 14+20, 6)
		}
		qt.Assert(t, qt.Equals(s.Transmit([]xsk.Desc{d}), 1))
		until(t, "transmission", func() bool { kick(t, s); return s.TxPending() == 0 })
	}
	// The kernel discards the first: its checksum is wrong and nobody vouches for it.
	send(xsk.Desc{Addr: 256}, "without metadata", false)
	send(xsk.Desc{Addr: frameSize + 256}, "with metadata", true)
	got := make([]byte, 100)
	qt.Assert(t, qt.IsNil(conn.SetReadDeadline(time.Now().Add(3*time.Minute))))
	n, _, err := conn.ReadFromUDP(got)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(got[:n]), "with metadata"))

	// No room for the metadata in front of the address.
	before, err := s.Stats()
	qt.Assert(t, qt.IsNil(err))
	send(xsk.Desc{Addr: 2 * frameSize}, "no room", false)
	st, err := s.Stats()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(st.TxInvalidDescs-before.TxInvalidDescs, 1))
	qt.Check(t, qt.PanicMatches(func() { u.SetTxChecksum(&xsk.Desc{Addr: 8}, 0, 0) }, ".*out of range.*"))
}

// udp builds a frame with a UDP packet whose checksum is partial: the sum of the
// pseudo-header, not complemented.
func udp(dmac, smac net.HardwareAddr, from, to netip.AddrPort, text string) []byte {
	be := binary.BigEndian
	b := append(append([]byte{}, dmac...), smac...)
	b = be.AppendUint16(b, unix.ETH_P_IP)
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	ip = append(append(ip, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	be.PutUint16(ip[2:], uint16(20+8+len(text)))
	be.PutUint16(ip[10:], ^sum(0, ip))
	b = append(b, ip...)
	length := uint16(8 + len(text))
	b = be.AppendUint16(b, from.Port())
	b = be.AppendUint16(b, to.Port())
	b = be.AppendUint16(b, length)
	b = be.AppendUint16(b, sum(unix.IPPROTO_UDP+uint32(length), ip[12:20]))
	return append(b, text...)
}

// sum is the Internet checksum of b, an even number of bytes, before complementing.
func sum(start uint32, b []byte) uint16 {
	for i := 0; i < len(b); i += 2 {
		start += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for start > 0xffff {
		start = start>>16 + start&0xffff
	}
	return uint16(start)
}

func TestBusyPollOptions(t *testing.T) {
	p := newPair(t, 1)
	u := newUmem(t, anonymous(t, 64*frameSize), xsk.UmemConfig{})
	s, err := openAt(t, p.near, u, xsk.Options{RxSize: 64, BusyPoll: &xsk.BusyPoll{Prefer: true, Time: 20 * time.Microsecond, Budget: 64}})
	qt.Assert(t, qt.IsNil(err))
	// SO_BUSY_POLL_BUDGET cannot be read back.
	for opt, want := range map[int]int{unix.SO_PREFER_BUSY_POLL: 1, unix.SO_BUSY_POLL: 20} {
		got, err := unix.GetsockoptInt(s.Fd(), unix.SOL_SOCKET, opt)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(got, want))
	}
	_, err = openAt(t, p.far, u, xsk.Options{RxSize: 64, BusyPoll: &xsk.BusyPoll{Budget: 1 << 20}})
	qt.Check(t, qt.ErrorMatches(err, ".*set SO_BUSY_POLL_BUDGET to 1048576.*"))
}

// TestHotPathDoesNotAllocate runs one frame around all four rings per turn.
func TestHotPathDoesNotAllocate(t *testing.T) {
	p := newPair(t, 1)
	u := newUmem(t, anonymous(t, 128*frameSize), xsk.UmemConfig{})
	tx, rx := mustOpen(t, p.near, 0, u), mustOpen(t, p.far, 0, u)
	steer(t, p.near, tx.Fd())
	steer(t, p.far, rx.Fd())
	qt.Assert(t, qt.Equals(rx.FillFrames(frames(64, 96)), 32))
	out := []xsk.Desc{{Addr: 0, Len: 60}}
	copy(u.Bytes(out[0]), frame(p.far, p.near, 0, 60))
	in, addrs, back := make([]xsk.Desc, 16), make([]uint64, 16), make([]uint32, 1)
	received := 0
	allocs := testing.AllocsPerRun(500, func() {
		if tx.TxFree() == 0 || rx.FillFree() == 0 {
			t.Error("ring is full")
		}
		tx.Transmit(out)
		for tx.KickTx() == xsk.ErrAgain {
		}
		tx.Complete(addrs[:min(tx.CompletePending(), len(addrs))])
		if rx.FillNeedsWakeup() {
			t.Error("copy mode asked for a wake-up")
		}
		for _, d := range in[:rx.Receive(in)] {
			received++
			back[0] = uint32(d.Addr / frameSize)
			rx.FillFrames(back)
		}
		if err := rx.WakeRx(); err != nil {
			t.Error(err)
		}
	})
	qt.Check(t, qt.Equals(allocs, 0))
	qt.Check(t, qt.IsTrue(received > 0), qt.Commentf("%v", received))
}
