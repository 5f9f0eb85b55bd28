package tests

import (
	"errors"
	"math/rand"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/ringapp"
	"github.com/pastenet/paste/pasteapi"
)

// An application that writes nonsense into an idle ring gets the name of what
// is wrong, and a ring that works again at once.
func TestCorruptRing(t *testing.T) {
	l := newLab(t, netlab.Config{})
	pool := newPool(t, 64<<20)
	a := new(ringapp.App).Start(t, l, pasteapi.Options{NIC: l.ServerDev, Receive: pasteapi.ReceiveSteered, Pool: pool}, net.JoinHostPort(l.ServerIP4.String(), "7000"))
	qt.Assert(t, qt.IsNil(tripFrom(l, a.Addr, random(1<<20, 1), 1<<15)))
	free := pool.Frames() - 1
	qt.Assert(t, qt.Equals(pool.Refs(free), 0))
	long := dial(t, l, a.Addr) // lives through all of it
	for _, c := range []struct {
		name, field string
		break_      func(rx, tx *pasteapi.NetmapRing)
	}{
		{"rx head beyond tail", "head", func(rx, _ *pasteapi.NetmapRing) { rx.Head = rx.Next(rx.Tail) }},
		{"rx head beyond ring", "head", func(rx, _ *pasteapi.NetmapRing) { rx.Head = 1 << 31 }},
		{"rx cur before head", "cur", func(rx, _ *pasteapi.NetmapRing) { rx.Cur = (rx.Head + rx.NumSlots - 1) % rx.NumSlots }},
		{"rx cur beyond ring", "cur", func(rx, _ *pasteapi.NetmapRing) { rx.Cur = rx.NumSlots }},
		{"rx num_slots", "num_slots", func(rx, _ *pasteapi.NetmapRing) { rx.NumSlots = 1 << 30 }},
		{"tx head beyond ring", "head", func(_, tx *pasteapi.NetmapRing) { tx.Head = tx.NumSlots }},
		{"tx cur before head", "cur", func(_, tx *pasteapi.NetmapRing) {
			first := tx.Head
			put(tx, func(*pasteapi.Slot) {})
			tx.Cur = first
		}},
		{"tx num_slots zero", "num_slots", func(_, tx *pasteapi.NetmapRing) { tx.NumSlots = 0 }},
		{"tx buf_idx beyond pool", "buf_idx", func(_, tx *pasteapi.NetmapRing) { put(tx, func(s *pasteapi.Slot) { s.BufIdx = 1 << 31 }) }},
		{"tx buf_idx reserved", "buf_idx", func(_, tx *pasteapi.NetmapRing) { put(tx, func(s *pasteapi.Slot) { s.BufIdx = 1 }) }},
		{"tx buf_idx of nobody", "buf_idx", func(_, tx *pasteapi.NetmapRing) { put(tx, func(s *pasteapi.Slot) { s.BufIdx = free }) }},
		{"tx len beyond buffer", "len", func(_, tx *pasteapi.NetmapRing) { put(tx, func(s *pasteapi.Slot) { s.Len = 65535 }) }},
		{"tx doff beyond len", "len", func(_, tx *pasteapi.NetmapRing) {
			put(tx, func(s *pasteapi.Slot) { s.Len = 10; s.SetDoff(pasteapi.MaxDoff) })
		}},
		{"tails", "", func(rx, tx *pasteapi.NetmapRing) { rx.Tail, tx.Tail = 1<<20, 0 }},
		{"unused fields", "", func(rx, tx *pasteapi.NetmapRing) {
			rx.BufAlign, rx.OffsetMask, tx.Flags, tx.RingID, tx.Dir = 7, 7, 7, 7, 7
		}},
		{"tx slot of a socket that is not there", "", func(_, tx *pasteapi.NetmapRing) {
			put(tx, func(s *pasteapi.Slot) { s.SetFd(-1) })
			put(tx, func(s *pasteapi.Slot) { s.SetFd(1 << 30) })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var seen int
			a.Do(func() {
				seen = len(a.Errs)
				c.break_(a.Ring.RX(), a.Ring.TX())
			})
			var errs []error
			a.Do(func() { errs = a.Errs[seen:] })
			if c.field == "" {
				qt.Assert(t, qt.HasLen(errs, 0))
			} else {
				qt.Assert(t, qt.HasLen(errs, 1))
				var re *pasteapi.RingError
				qt.Assert(t, qt.ErrorAs(errs[0], &re))
				qt.Check(t, qt.ErrorIs(errs[0], pasteapi.ErrRingCorrupt))
				qt.Check(t, qt.StringContains(re.Field, c.field))
				qt.Check(t, qt.Equals(re.Ring, c.name[:2]))
				qt.Check(t, qt.IsTrue(!strings.Contains(errs[0].Error(), "\n")))
			}
			qt.Check(t, qt.IsNil(tripFrom(l, a.Addr, random(300_000, 1), 10_000)))
		})
	}
	qt.Check(t, qt.IsNil(roundTrip(long, random(1<<20, 2), 10_000)))
}

// put hands a broken TX slot over.
func put(tx *pasteapi.NetmapRing, change func(s *pasteapi.Slot)) {
	s := tx.Slot(tx.Head)
	s.SetFd(0)
	s.SetDoff(0)
	s.Len = 0
	change(s)
	tx.Head = tx.Next(tx.Head)
	tx.Cur = tx.Head
}

// Random nonsense under traffic: connections may see rubbish, the application
// only ever sees ErrRingCorrupt, and afterwards everything works.
func TestCorruptRingRandomly(t *testing.T) {
	l := newLab(t, netlab.Config{})
	// It copies: an application that forwards buffers by swapping them would
	// lose those whose index is overwritten on the way.
	a := &ringapp.App{}
	a.OnData = func(a *ringapp.App, s *pasteapi.Slot) error { return a.Send(s.Fd(), a.Ring.RX().Payload(s)) }
	a.Start(t, l, pasteapi.Options{NIC: l.ServerDev, Receive: pasteapi.ReceiveSteered, Pool: newPool(t, 64<<20)}, net.JoinHostPort(l.ServerIP4.String(), "7000"))
	rng := rand.New(rand.NewSource(1))
	wild := []func() uint32{
		func() uint32 { return rng.Uint32() },
		func() uint32 { return uint32(rng.Intn(2048)) },
		func() uint32 { return ^uint32(rng.Intn(3)) },
		func() uint32 { return uint32(rng.Intn(2)) },
	}
	nonsense := func() uint32 { return wild[rng.Intn(len(wild))]() }
	damage := func(n *pasteapi.NetmapRing) {
		if n.NumSlots != 1024 || n.Tail >= 1024 || n.Head >= 1024 {
			return // broken and not repaired yet
		}
		switch rng.Intn(6) {
		case 0:
			n.Head = nonsense()
		case 1:
			n.Cur = nonsense()
		case 2:
			n.Head = nonsense()
			n.Cur = n.Head
		case 3:
			n.Tail = nonsense()
		case 4:
			n.NumSlots = nonsense()
		case 5:
			// In an RX ring slots that the port owns, which it writes anew; in
			// a TX ring some that are handed over like this.
			for i := range uint32(20) {
				s := n.Slot((n.Tail + i) % n.NumSlots)
				if n.Dir == 1 {
					s = n.Slot(n.Head)
					n.Head = n.Next(n.Head)
					n.Cur = n.Head
				}
				// No index of a frame in use: one that the application holds
				// is its right to put there.
				s.BufIdx = []uint32{0, 1, 1 << 30, ^uint32(0), 1<<15 - 1}[rng.Intn(5)]
				s.Len = uint16(rng.Uint32())
				s.Ptr = rng.Uint64()
			}
		}
	}
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			// What comes back is undefined; that it ends is not.
			if c, err := tryDial(l, a.Addr); err == nil {
				_ = c.SetDeadline(time.Now().Add(200 * time.Millisecond))
				_ = roundTrip(c, random(20_000, 1), 5000)
			}
		}
	}()
	for range 2000 {
		a.Do(func() {
			damage(a.Ring.RX())
			if rng.Intn(2) == 0 {
				damage(a.Ring.TX())
			}
		})
	}
	close(stop)
	<-done
	// One Poll tells of one broken ring.
	for range 3 {
		a.Do(func() {})
	}
	a.Do(func() {
		qt.Check(t, qt.IsTrue(len(a.Errs) > 500), qt.Commentf("%d errors", len(a.Errs)))
		for _, err := range a.Errs {
			qt.Assert(t, qt.IsTrue(errors.Is(err, pasteapi.ErrRingCorrupt)))
		}
		a.Errs = nil
	})
	parallel(t, 8, func(i int) error { return tripFrom(l, a.Addr, random(500_000, int64(i)), 10_000) })
	a.Do(func() { qt.Check(t, qt.HasLen(a.Errs, 0)) })
	a.Stop(t)
}
