package pasteapi

import (
	"encoding/binary"
	"errors"
	"testing"
	"unsafe"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/pasteapi/internal/trace"
	"github.com/pastenet/paste/pmem"
	"pgregory.net/rapid"
)

// TestLayout reads a ring as a C program compiled for netmap would: by offset.
func TestLayout(t *testing.T) {
	r, _ := newTestRing(t)
	b := unsafe.Slice((*byte)(unsafe.Pointer(r.RX())), ringBytes(int(r.RX().NumSlots)))
	le := binary.LittleEndian
	qt.Check(t, qt.Equals(int64(le.Uint64(b[0:])), r.RX().BufOfs))
	qt.Check(t, qt.Equals(le.Uint32(b[8:]), 64))
	qt.Check(t, qt.Equals(le.Uint32(b[12:]), 2048))
	r.RX().Head, r.RX().Cur, r.RX().Tail = 3, 4, 5
	qt.Check(t, qt.Equals(le.Uint32(b[20:]), 3))
	qt.Check(t, qt.Equals(le.Uint32(b[24:]), 4))
	qt.Check(t, qt.Equals(le.Uint32(b[28:]), 5))

	s := r.RX().Slot(7)
	s.BufIdx, s.Len, s.Flags = 0x11223344, 0x5566, 0x7788
	s.SetFd(0x01020304)
	s.SetDoff(0x3ff)
	raw := b[256+7*16:]
	qt.Check(t, qt.Equals(le.Uint32(raw[0:]), 0x11223344))
	qt.Check(t, qt.Equals(le.Uint16(raw[4:]), 0x5566))
	qt.Check(t, qt.Equals(le.Uint16(raw[6:]), 0x7788))
	qt.Check(t, qt.Equals(le.Uint64(raw[8:])>>8&0xffffffff, 0x01020304))
	qt.Check(t, qt.Equals(le.Uint64(raw[8:])>>40&0x3ff, 0x3ff))
	qt.Check(t, qt.Equals(s.Fd(), 0x01020304))
	qt.Check(t, qt.Equals(s.Doff(), 0x3ff))
	s.SetFd(-1)
	qt.Check(t, qt.Equals(s.Fd(), -1))
	qt.Check(t, qt.Equals(s.Doff(), 0x3ff))
	s.BufIdx = r.pair.rx.bufs[7]
}

// newTestRing is a ring without a NIC.
func newTestRing(t testing.TB, with ...func(*Options)) (*Ring, *pmem.Pool) {
	t.Helper()
	pool, err := pmem.NewMemory("ring-test", pmem.Options{Size: 8 << 20})
	qt.Assert(t, qt.IsNil(err))
	free := pool.Free()
	o := Options{Pool: pool, Slots: 64}
	for _, f := range with {
		f(&o)
	}
	qt.Assert(t, qt.IsNil(o.complete()))
	r, err := newRing(&o, 0, new(trace.Switch))
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() {
		qt.Check(t, qt.IsNil(r.close()))
		qt.Check(t, qt.Equals(pool.Free(), free), qt.Commentf("frames leaked"))
		qt.Check(t, qt.Equals(pool.Misuses(), 0))
		qt.Check(t, qt.IsNil(pool.Close()))
	})
	return r, pool
}

// TestCorruptRing breaks each rule in turn: the error names the field, nothing
// is touched outside of the ring, and the ring works afterwards.
func TestCorruptRing(t *testing.T) {
	r, pool := newTestRing(t)
	for _, ring := range []struct {
		n    *NetmapRing
		sync func() error
	}{
		{r.RX(), func() error { _, err := r.RxSync(); return err }},
		{r.TX(), r.TxSync},
	} {
		// Give the application some slots of either ring.
		r.pair.rx.tail = 10
		r.RX().Tail = 10
		for field, bend := range map[string]func(n *NetmapRing){
			"head":           func(n *NetmapRing) { n.Head = 64 },
			"cur":            func(n *NetmapRing) { n.Cur = n.Tail + 1; n.Head = 1 },
			"num_slots":      func(n *NetmapRing) { n.NumSlots = 1 << 31 },
			"slot 0 buf_idx": func(n *NetmapRing) { n.Slot(0).BufIdx = 1; n.Head = 1; n.Cur = 1 },
		} {
			bend(ring.n)
			err := ring.sync()
			var broken *RingError
			qt.Assert(t, qt.IsTrue(errors.As(err, &broken)), qt.Commentf("%s: %v", field, err))
			qt.Check(t, qt.Equals(broken.Field, field))
			qt.Check(t, qt.ErrorIs(err, ErrRingCorrupt))
			qt.Check(t, qt.IsNil(ring.sync()), qt.Commentf("after %s", field))
			qt.Check(t, qt.Equals(ring.n.NumSlots, 64))
		}
		// A free frame is nobody's to give.
		var f [1]uint32
		qt.Assert(t, qt.Equals(pool.Alloc(f[:]), 1))
		pool.Unref(f[0])
		mine := ring.n.Slot(0).BufIdx
		ring.n.Slot(0).BufIdx = f[0]
		ring.n.Head, ring.n.Cur = 1, 1
		qt.Check(t, qt.ErrorIs(ring.sync(), ErrRingCorrupt))
		ring.n.Slot(0).BufIdx = mine
		// An overwritten tail is put right without a word.
		tail := ring.n.Tail
		ring.n.Tail = 1 << 20
		qt.Check(t, qt.IsNil(ring.sync()))
		qt.Check(t, qt.Equals(ring.n.Tail, tail))
	}
	// Lengths that leave the buffer.
	s := r.TX().Slot(r.TX().Head)
	s.Len = 65535
	r.TX().Head = r.TX().Next(r.TX().Head)
	r.TX().Cur = r.TX().Head
	qt.Check(t, qt.ErrorIs(r.TxSync(), ErrRingCorrupt))
	qt.Check(t, qt.IsNil(r.TxSync()))
}

// TestSwapRings exchanges buffers between the rings, as forwarding does, and
// with buffers of the application's own.
func TestSwapRings(t *testing.T) {
	r, pool := newTestRing(t)
	rapid.Check(t, func(t *rapid.T) {
		n := uint32(rapid.IntRange(1, 20).Draw(t, "slots"))
		v := &r.pair.rx
		v.tail = (v.head + n) % v.slots
		r.RX().Tail = v.tail
		for range n {
			in, out := r.RX().Slot(r.RX().Head), r.TX().Slot(r.TX().Head)
			out.Len = 0
			out.SetDoff(0)
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				in.BufIdx, out.BufIdx = out.BufIdx, in.BufIdx
				r.TX().Head = r.TX().Next(r.TX().Head)
				r.TX().Cur = r.TX().Head
			case 1:
				f, err := r.Keep(in)
				if err != nil {
					t.Fatal(err)
				}
				pool.Unref(f)
			}
			r.RX().Head = r.RX().Next(r.RX().Head)
			r.RX().Cur = r.RX().Head
		}
		if err := r.TxSync(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.RxSync(); err != nil {
			t.Fatal(err)
		}
	})
}
