package netmap_test

import (
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/internal/testwait"
	"github.com/pastenet/paste/netmap"
)

// TestAnotherProcess: the other end of a pipe, or another port of a switch, is refused to
// another process, with a sentence; and to nobody when that process has gone.
func TestAnotherProcess(t *testing.T) {
	l := netlabtest.New(t, netlab.Config{Prefix: "nm"})
	names := map[string]string{"netmap:ap{1": "netmap:ap}1", "vale3:a": "vale3:b"}
	for mine, other := range names {
		cmd := openElsewhere(t, l, mine)
		for _, name := range []string{mine, other} {
			_, err := tryOpen(t, l.Server, name, netmap.Options{})
			qt.Check(t, qt.ErrorIs(err, netmap.ErrBusy))
			qt.Check(t, qt.ErrorMatches(err, ".*by another process; pipes and switches join ports of one process.*"))
		}
		openIn(t, l.Client, other, netmap.Options{}) // of another namespace
		qt.Assert(t, qt.IsNil(cmd.Process.Kill()))
		_ = cmd.Wait()
		testwait.Until(t, "the name to be free", func() bool {
			p, err := tryOpen(t, l.Server, mine, netmap.Options{})
			return err == nil && p != nil
		})
	}
}

// TestReport: a slot with NS_REPORT comes back when its frame was sent, as every slot does,
// and the frame is like any other.
func TestReport(t *testing.T) {
	l := netlabtest.New(t, netlab.Config{Prefix: "nm"})
	from, to := openIn(t, l.Server, "netmap:"+l.ServerDev, netmap.Options{Slots: 16}), openIn(t, l.Client, "netmap:"+l.ClientDev, netmap.Options{})
	tx := from.TX(0)
	room := tx.Space()
	for i := range 5 {
		qt.Assert(t, qt.IsTrue(put(t, tx, frame(i, 60), 60)))
		if i%2 == 0 {
			tx.Slot((tx.Head + tx.NumSlots - 1) % tx.NumSlots).Flags |= netmap.NS_REPORT
		}
	}
	for n := 0; n < 5; {
		qt.Assert(t, qt.IsNil(from.TxSync()))
		_, err := to.Poll(netmap.In, testwait.Patience)
		qt.Assert(t, qt.IsNil(err))
		rx := to.RX(0)
		for ; !rx.Empty(); rx.Head, rx.Cur = rx.Next(rx.Head), rx.Next(rx.Head) {
			s := rx.Slot(rx.Head)
			if f := rx.Buf(s)[:s.Len]; f[12] == 0x88 && f[13] == 0xb5 {
				qt.Check(t, qt.Equals(number(f), n))
				qt.Check(t, qt.Equals(s.Flags, 0))
				n++
			}
		}
	}
	testwait.Until(t, "all slots to come back", func() bool { return from.TxSync() == nil && tx.Space() == room })
}
