package netmap_test

import (
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/netmap"
)

// TestFrames sends frames of all sizes both ways over a veth, several times round
// the rings.
func TestFrames(t *testing.T) {
	l := newLab(t, 1)
	a := openIn(t, l.Server, "netmap:"+l.ServerDev, netmap.Options{Slots: 64})
	b := openIn(t, l.Client, "netmap:"+l.ClientDev, netmap.Options{Slots: 64})
	for _, way := range []struct{ from, to *netmap.Port }{{a, b}, {b, a}} {
		sent := 0
		for round := range 10 {
			var want [][]byte
			for {
				f := frame(sent, 60+(sent*97)%1440)
				if !put(t, way.from.TX(0), f, 1700) {
					break
				}
				want = append(want, f)
				sent++
			}
			qt.Assert(t, qt.IsTrue(len(want) > 0), qt.Commentf("round %d", round))
			qt.Assert(t, qt.IsNil(way.from.TxSync()))
			got := recv(t, way.to, len(want))
			same(t, got, want)
			_, err := way.from.Poll(netmap.Out, -1)
			qt.Assert(t, qt.IsNil(err))
		}
		st, err := way.from.Stats()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(st.TX[0].Frames, uint64(sent)))
		st, err = way.to.Stats()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(st.RX[0].Frames, uint64(sent)))
		qt.Check(t, qt.Equals(st.RX[0].Dropped(), uint64(0)))
	}
}
