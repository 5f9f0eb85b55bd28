package conns

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/pasteapi/internal/wire"
)

// TestFlows: the connection of a segment is found by its addresses and ports,
// and one with the same ends that was added later is not removed with it.
func TestFlows(t *testing.T) {
	for _, ends := range [][2]string{{"10.0.0.2:40000", "10.0.0.1:80"}, {"[fd00::2]:40000", "[fd00::1]:80"}} {
		c := &Conn{Peer: netip.MustParseAddrPort(ends[0]), Local: netip.MustParseAddrPort(ends[1])}
		f := make([]byte, 100)
		s := wire.Segment{L3: 14, L4: 34, V6: c.Peer.Addr().Is6()}
		if s.V6 {
			s.L4 = 54
		}
		copy(s.Addrs(f), append(c.Peer.Addr().AsSlice(), c.Local.Addr().AsSlice()...))
		binary.BigEndian.PutUint16(f[s.L4:], c.Peer.Port())
		binary.BigEndian.PutUint16(f[s.L4+2:], c.Local.Port())
		qt.Check(t, qt.Equals(s.Flow(f), flowOf(c.Peer, c.Local)))

		flows := NewFlows[int]()
		first, second := new(int), new(int)
		qt.Check(t, qt.IsNil(flows.Find(&s, f)))
		flows.Add(c, first)
		qt.Check(t, qt.Equals(flows.Find(&s, f), first))
		flows.Add(c, second)
		qt.Check(t, qt.IsFalse(flows.Remove(c, first)))
		qt.Check(t, qt.Equals(flows.Find(&s, f), second))
		f[s.L4]++ // another port
		qt.Check(t, qt.IsNil(flows.Find(&s, f)))
		f[s.L4]--
		qt.Check(t, qt.IsTrue(flows.Remove(c, second)))
		qt.Check(t, qt.IsNil(flows.Find(&s, f)))
	}
}
