package netmap_test

import (
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/testwait"
	"github.com/pastenet/paste/netmap"
)

// TestRingRules breaks each rule of a ring: the error says which, the ring is in order
// again, and frames go on.
func TestRingRules(t *testing.T) {
	m := newMemory(t, netmap.MemoryOptions{Buffers: 1024})
	a := openIn(t, nil, "netmap:rules{1", netmap.Options{Slots: 16, Memory: m})
	b := openIn(t, nil, "netmap:rules}1", netmap.Options{Slots: 16, Memory: m})
	for name, breakIt := range map[string]func(r *netmap.Ring){
		"head beyond the ring": func(r *netmap.Ring) { r.Head = 1 << 30 },
		"cur before head":      func(r *netmap.Ring) { r.Head = r.Next(r.Head) },
		"num_slots":            func(r *netmap.Ring) { r.NumSlots = 1 << 20 },
		"buffer 0":             func(r *netmap.Ring) { r.Slot(r.Head).BufIdx = 0; r.Head = r.Next(r.Head); r.Cur = r.Head },
		"buffer out of memory": func(r *netmap.Ring) { r.Slot(r.Head).BufIdx = 1 << 31; r.Head = r.Next(r.Head); r.Cur = r.Head },
		"buffer of nobody":     func(r *netmap.Ring) { r.Slot(r.Head).BufIdx = 1000; r.Head = r.Next(r.Head); r.Cur = r.Head },
		"length": func(r *netmap.Ring) {
			r.Slot(r.Head).Len = 2049
			r.Head = r.Next(r.Head)
			r.Cur = r.Head
		},
	} {
		t.Run(name, func(t *testing.T) {
			breakIt(a.TX(0))
			err := a.TxSync()
			e := new(netmap.RingError)
			qt.Assert(t, qt.ErrorAs(err, &e), qt.Commentf("%v", err))
			qt.Check(t, qt.ErrorIs(err, netmap.ErrRingCorrupt))
			qt.Check(t, qt.Equals(a.TX(0).Space(), uint32(15)))

			f := frame(7, 100)
			qt.Assert(t, qt.IsTrue(put(t, a.TX(0), f, 1500)))
			qt.Assert(t, qt.IsNil(a.TxSync()))
			same(t, recv(t, b, 1), [][]byte{f})
		})
	}
	// Of the receiving ring the program has nothing now: any other place is beyond.
	for name, breakIt := range map[string]func(r *netmap.Ring){
		"head beyond tail": func(r *netmap.Ring) { r.Head, r.Cur = r.Next(r.Tail), r.Next(r.Tail) },
		"cur beyond tail":  func(r *netmap.Ring) { r.Cur = r.Next(r.Tail) },
	} {
		t.Run(name, func(t *testing.T) {
			breakIt(b.RX(0))
			qt.Check(t, qt.ErrorIs(b.RxSync(), netmap.ErrRingCorrupt))
			qt.Check(t, qt.IsTrue(b.RX(0).Empty()))
			qt.Check(t, qt.IsNil(b.RxSync()))
		})
	}
	// An overwritten tail is no error: it is put right.
	a.TX(0).Tail = 3
	qt.Assert(t, qt.IsNil(a.TxSync()))
	qt.Check(t, qt.Equals(a.TX(0).Space(), uint32(15)))
}

// TestRefused has what a raw port does not do refused by name, frame by frame.
func TestRefused(t *testing.T) {
	l := newLab(t, 1)
	p := openIn(t, l.Server, "netmap:"+l.ServerDev+"/T", netmap.Options{})
	for flag, word := range map[uint16]string{netmap.NS_INDIRECT: "NS_INDIRECT", netmap.NS_FORWARD: "NS_FORWARD"} {
		s := p.TX(0).Slot(p.TX(0).Head)
		s.Len, s.Flags = 60, flag
		p.TX(0).Head = p.TX(0).Next(p.TX(0).Head)
		p.TX(0).Cur = p.TX(0).Head
		err := p.TxSync()
		qt.Check(t, qt.ErrorIs(err, netmap.ErrFrame))
		qt.Check(t, qt.ErrorMatches(err, ".*"+word+".*"))
	}
	put(t, p.TX(0), frame(1, 1900), 2048)
	qt.Check(t, qt.ErrorMatches(p.TxSync(), ".*1900 bytes.*1792.*"))
	// More pieces than an skb has, in two syncs: all of it is refused, and what follows
	// is not.
	put(t, p.TX(0), frame(1, 60*25), 60)
	qt.Check(t, qt.ErrorMatches(p.TxSync(), ".*17 slots.*"))
	put(t, p.TX(0), frame(1, 60), 60)
	qt.Check(t, qt.IsNil(p.TxSync()))
	st, err := p.Stats()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(st.TX[0].Frames, uint64(1)))
	qt.Check(t, qt.IsTrue(st.TX[0].Refused >= 4))

	for _, name := range []string{"/z", "/t", "/r", "@offset=64", "^1"} {
		_, err := tryOpen(t, l.Server, "netmap:"+l.ServerDev+name, netmap.Options{})
		qt.Check(t, qt.IsTrue(isUnsupported(err)), qt.Commentf("%s: %v", name, err))
	}
	for _, name := range []string{"-1", "@conf:rings=3", "@conf:slots=40000", "@77", "@share=netmap:nobody"} {
		_, err := tryOpen(t, l.Server, "netmap:"+l.ServerDev+name, netmap.Options{})
		qt.Check(t, qt.IsNotNil(err), qt.Commentf("%s", name))
	}
}

// TestDrops counts the frames for which a program leaves no buffers.
func TestDrops(t *testing.T) {
	l := newLab(t, 1)
	from := openIn(t, l.Server, "netmap:"+l.ServerDev+"/T", netmap.Options{Slots: 512})
	to := openIn(t, l.Client, "netmap:"+l.ClientDev+"/R", netmap.Options{Slots: 64})
	const frames = 200
	for i := range frames {
		qt.Assert(t, qt.IsTrue(put(t, from.TX(0), frame(i, 60), 60)))
	}
	testwait.Until(t, "every frame at its end", func() bool {
		qt.Assert(t, qt.IsNil(from.TxSync()))
		qt.Assert(t, qt.IsNil(to.RxSync()))
		st, err := to.Stats()
		qt.Assert(t, qt.IsNil(err))
		return st.RX[0].Frames+st.RX[0].DropNoBuffer+st.RX[0].DropRingFull >= frames-1 // one waits for a slot
	})
	st, err := to.Stats()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(st.RX[0].Frames, uint64(63)))
	qt.Check(t, qt.IsTrue(st.RX[0].DropNoBuffer+st.RX[0].DropRingFull > 0))
}

// TestTimestamp has the time of a sync in the ring, if asked.
func TestTimestamp(t *testing.T) {
	m := newMemory(t, netmap.MemoryOptions{Buffers: 256})
	p := openIn(t, nil, "netmap:stamp{1", netmap.Options{Slots: 16, Memory: m})
	qt.Assert(t, qt.IsNil(p.RxSync()))
	qt.Check(t, qt.Equals(p.RX(0).TsSec, int64(0)))
	before := time.Now().Unix()
	p.RX(0).Flags |= netmap.NR_TIMESTAMP
	qt.Assert(t, qt.IsNil(p.RxSync()))
	qt.Check(t, qt.IsTrue(p.RX(0).TsSec >= before && p.RX(0).TsSec <= time.Now().Unix()))
	qt.Check(t, qt.IsTrue(p.RX(0).TsUsec >= 0 && p.RX(0).TsUsec < 1e6))
}
