package trace

import (
	"errors"
	"net/netip"
	"reflect"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/pasteapi/internal/conns"
)

func connOf(fd int, cookie uint64, peer, local string) *conns.Conn {
	return &conns.Conn{FD: fd, Cookie: cookie, Peer: netip.MustParseAddrPort(peer), Local: netip.MustParseAddrPort(local)}
}

func TestFilter(t *testing.T) {
	c := connOf(3, 1, "10.0.0.2:4000", "10.0.0.1:80")
	mapped := connOf(3, 1, "[::ffff:10.0.0.2]:4000", "[::ffff:10.0.0.1]:80")
	linkLocal := connOf(3, 1, "[fe80::2%eth0]:4000", "[fe80::1%eth0]:80")
	for name, f := range map[string]struct {
		Filter
		c    *conns.Conn
		want bool
	}{
		"everything":             {Filter{}, c, true},
		"the local port":         {Filter{Port: 80}, c, true},
		"the peer's port":        {Filter{Port: 4000}, c, true},
		"another port":           {Filter{Port: 81}, c, false},
		"the peer":               {Filter{Peer: netip.MustParsePrefix("10.0.0.2/32")}, c, true},
		"its network":            {Filter{Peer: netip.MustParsePrefix("10.0.0.0/24")}, mapped, true},
		"another network":        {Filter{Peer: netip.MustParsePrefix("10.0.1.0/24")}, c, false},
		"not the local address":  {Filter{Peer: netip.MustParsePrefix("10.0.0.1/32")}, c, false},
		"a peer on a link":       {Filter{Peer: netip.MustParsePrefix("fe80::/10")}, linkLocal, true},
		"the connection":         {Filter{Conn: netip.MustParseAddrPort("10.0.0.2:4000")}, mapped, true},
		"another connection":     {Filter{Conn: netip.MustParseAddrPort("10.0.0.2:4001")}, c, false},
		"all of them":            {Filter{Port: 80, Peer: netip.MustParsePrefix("10.0.0.0/8"), Conn: netip.MustParseAddrPort("10.0.0.2:4000")}, c, true},
		"all of them, but a one": {Filter{Port: 81, Peer: netip.MustParsePrefix("10.0.0.0/8"), Conn: netip.MustParseAddrPort("10.0.0.2:4000")}, c, false},
	} {
		qt.Check(t, qt.Equals(f.match(f.c), f.want), qt.Commentf("%s", name))
	}
}

// TestEvents: bytes are counted in each direction, of each connection, and the first are
// kept.
func TestEvents(t *testing.T) {
	c, next := connOf(3, 1, "10.0.0.2:4000", "10.0.0.1:80"), connOf(3, 2, "10.0.0.2:4001", "10.0.0.1:80")
	var on Switch
	tap := NewTap(&on, 5, func(fd int) *conns.Conn {
		if fd == c.FD {
			return c
		}
		return nil
	})
	s := NewSession(Filter{}, 4)
	qt.Assert(t, qt.IsTrue(on.Begin(s)))
	qt.Check(t, qt.IsFalse(on.Begin(NewSession(Filter{}, 4))), qt.Commentf("two at once"))

	tap.Received(c, Steered, 1<<16|7, []byte("question"))
	tap.Sent(3, []byte("ans"))
	tap.Sent(4, []byte("of nobody"))
	tap.Received(c, Reclaimed, 8, []byte("question"))
	tap.Received(c, Read, 0, []byte("on"))
	tap.Ended(c, errors.New("reset"))
	tap.Received(next, Copied, 0, []byte("x")) // another connection by the same descriptor
	on.End()
	tap.Received(c, Copied, 0, []byte("nobody looks"))

	for _, want := range []Event{
		{Way: Steered, Ticket: 1<<16 | 7, Len: 8, Data: []byte("ques")},
		{Way: Sent, Len: 3, Data: []byte("ans"), Ack: 8},
		{Way: Reclaimed, Ticket: 8, Len: 8, Data: []byte("ques"), Seq: 8, Ack: 3},
		{Way: Read, Len: 2, Data: []byte("on"), Seq: 8, Ack: 3},
		{Way: Closed, Seq: 10, Ack: 3, Cause: "reset"},
		{Way: Copied, Len: 1, Data: []byte("x")},
	} {
		e := <-s.Events
		qt.Check(t, qt.IsFalse(e.Time.IsZero()))
		qt.Check(t, qt.Equals(e.Local, c.Local))
		qt.Check(t, qt.Equals(e.Ring, 5))
		want.Time, want.Peer, want.Local, want.Ring = e.Time, e.Peer, e.Local, e.Ring
		qt.Check(t, qt.IsTrue(reflect.DeepEqual(e, want)), qt.Commentf("got %+v, want %+v", e, want))
	}
	qt.Check(t, qt.HasLen(s.Events, 0))
}

// TestNobodyReads: what has no room is counted, and nobody waits.
func TestNobodyReads(t *testing.T) {
	c := connOf(3, 1, "10.0.0.2:4000", "10.0.0.1:80")
	for name, snap := range map[string]int{"many events": 1, "many bytes": 64 << 10} {
		t.Run(name, func(t *testing.T) {
			var on Switch
			tap := NewTap(&on, 0, nil)
			s := NewSession(Filter{}, snap)
			qt.Assert(t, qt.IsTrue(on.Begin(s)))
			const n = maxEvents + 100
			data := make([]byte, snap)
			for range n {
				tap.Received(c, Copied, 0, data)
			}
			kept := min(maxEvents, maxBytes/snap)
			qt.Check(t, qt.Equals(len(s.Events), kept))
			qt.Check(t, qt.Equals(s.Lost(), uint64(n-kept)))

			e := <-s.Events
			s.Took(&e)
			tap.Received(c, Copied, 0, data)
			qt.Check(t, qt.Equals(len(s.Events), kept))
			var last Event
			for len(s.Events) > 0 {
				last = <-s.Events
			}
			qt.Check(t, qt.Equals(last.Lost, uint64(n-kept)))
			qt.Check(t, qt.Equals(last.Seq, uint32(n*snap)), qt.Commentf("what was lost leaves a gap"))
		})
	}
}

// TestOffCostsNothing: while nobody traces, a place where somebody could be told something
// loads a pointer.
func TestOffCostsNothing(t *testing.T) {
	var on Switch
	tap := NewTap(&on, 0, nil) // with nothing to ask: a nil pointer if it asks
	told := false
	allocs := testing.AllocsPerRun(100, func() {
		if tap.On() {
			told = true
		}
		tap.Received(nil, Steered, 1, nil)
		tap.Sent(3, []byte{1})
		tap.Ended(nil, nil)
	})
	qt.Check(t, qt.Equals(allocs, 0))
	qt.Check(t, qt.IsFalse(told))
}
