package netmap_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/netmap"
	"github.com/pastenet/paste/netmap/portspec"
	"github.com/pastenet/paste/pmem"
	"golang.org/x/sys/unix"
)

// newPool makes a pool in a file on tmpfs.
func newPool(t testing.TB) *pmem.Pool {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "nm")
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { os.RemoveAll(dir) })
	p, err := pmem.Create(filepath.Join(dir, "x.pool"), pmem.Options{Size: 16 << 20})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(p.Close())) })
	return p
}

// TestLayout reads a port as a C program does: through a mapping of its own, from the
// netmap_if by offsets alone.
func TestLayout(t *testing.T) {
	pool := newPool(t)
	ofPool, err := netmap.PoolMemory(pool, netmap.MemoryOptions{})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(ofPool.Close())) })
	for name, m := range map[string]*netmap.Memory{"memfd": newMemory(t, netmap.MemoryOptions{Buffers: 2048, BufSize: 4096}), "pool": ofPool} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, 2)
			a := openIn(t, l.Server, "netmap:"+l.ServerDev+"-1", netmap.Options{Memory: m, Slots: 64, ExtraBufs: 5})
			b := openIn(t, l.Client, "netmap:"+l.ClientDev, netmap.Options{Slots: 64})
			mem := mapSegments(t, m)
			qt.Assert(t, qt.Equals(len(mem), len(m.Bytes())))

			u32 := func(at int64) uint32 { return binary.NativeEndian.Uint32(mem[at:]) }
			u64 := func(at int64) int64 { return int64(binary.NativeEndian.Uint64(mem[at:])) }
			nifp := int64(a.IfOffset())
			qt.Check(t, qt.Equals(unix.ByteSliceToString(mem[nifp:nifp+16]), a.Name()[len("netmap:"):len(a.Name())-len("-1")]))
			qt.Check(t, qt.DeepEquals([]uint32{u32(nifp + 16), u32(nifp + 24), u32(nifp + 28), u32(nifp + 36), u32(nifp + 40)}, []uint32{14, 2, 2, 1, 1}))
			// TX 0, 1, host; RX 0, 1, host: only those of queue 1 are open.
			var open []bool
			for i := range int64(6) {
				open = append(open, u64(nifp+56+8*i) != 0)
			}
			qt.Check(t, qt.DeepEquals(open, []bool{false, true, false, false, true, false}))

			tx := nifp + u64(nifp+56+8)
			qt.Check(t, qt.Equals(u32(tx+8), uint32(64)))
			qt.Check(t, qt.Equals(u32(tx+12), uint32(m.BufSize())))
			qt.Check(t, qt.Equals(u32(tx+16), uint32(1|1<<16)), qt.Commentf("ringid and dir"))
			idx := int64(u32(tx + 256))
			f := frame(3, 200)
			copy(mem[tx+u64(tx)+idx*int64(u32(tx+12)):], f)
			binary.NativeEndian.PutUint16(mem[tx+260:], 200)
			binary.NativeEndian.PutUint32(mem[tx+20:], 1) // head
			binary.NativeEndian.PutUint32(mem[tx+24:], 1) // cur
			qt.Assert(t, qt.IsNil(a.TxSync()))
			same(t, recv(t, b, 1), [][]byte{f})

			// The extra buffers, from the head of their chain.
			n := 0
			for i := u32(nifp + 32); i != 0; n++ {
				i = u32(tx + u64(tx) + int64(i)*int64(u32(tx+12)))
			}
			qt.Check(t, qt.Equals(n, 5))
		})
	}
}

func mapSegments(t testing.TB, m *netmap.Memory) []byte {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, len(m.Bytes()), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(unix.Munmap(mem))) })
	at := 0
	for _, s := range m.Segments() {
		_, err := unix.MmapPtr(s.Fd, s.Offset, unsafe.Pointer(&mem[at]), uintptr(s.Len), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED)
		qt.Assert(t, qt.IsNil(err))
		at += s.Len
	}
	return mem
}

// TestPoolFrames has a frame that was received go into the pool's log from where it
// lies, and the pool's accounts right at the end.
func TestPoolFrames(t *testing.T) {
	pool := newPool(t)
	free := pool.Free()
	m, err := netmap.PoolMemory(pool, netmap.MemoryOptions{})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.ErrorIs(pool.Close(), pmem.ErrBusy))
	l := newLab(t, 1)
	a := openIn(t, l.Server, "netmap:"+l.ServerDev, netmap.Options{})
	b := openIn(t, l.Client, "netmap:"+l.ClientDev, netmap.Options{Memory: m, Slots: 64})
	put(t, a.TX(0), frame(1, 1000), 1500)
	qt.Assert(t, qt.IsNil(a.TxSync()))
	_, err = b.Poll(netmap.In, -1)
	qt.Assert(t, qt.IsNil(err))
	rx := b.RX(0)
	s := rx.Slot(rx.Head)
	kept := s.BufIdx
	// netmap's buffer begins 256 bytes into the frame.
	_, err = pool.Log().Append([]pmem.Fragment{{Frame: kept, Off: 256, Len: s.Len}}, true)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(pool.Log().Commit()))

	// A buffer that is part of something else may not go back to the NIC.
	put(t, a.TX(0), frame(2, 60), 1500)
	qt.Assert(t, qt.IsNil(a.TxSync()))
	other := make([]uint32, 1)
	qt.Assert(t, qt.Equals(pool.Alloc(other), 1))
	pool.Ref(other[0])
	s.BufIdx, s.Flags = other[0], netmap.NS_BUF_CHANGED
	rx.Head, rx.Cur = rx.Next(rx.Head), rx.Next(rx.Head)
	qt.Check(t, qt.ErrorIs(b.RxSync(), netmap.ErrRingCorrupt))
	pool.Unref(other[0])
	s.BufIdx = other[0]
	rx.Head, rx.Cur = rx.Next(rx.Head), rx.Next(rx.Head)
	qt.Assert(t, qt.IsNil(b.RxSync()))
	pool.Unref(kept) // the log has it

	same(t, recv(t, b, 1), [][]byte{frame(2, 60)})
	qt.Assert(t, qt.IsNil(b.Close()))
	qt.Assert(t, qt.IsNil(m.Close()))
	qt.Check(t, qt.Equals(pool.Free(), free-1), qt.Commentf("one frame is in the log"))
	qt.Check(t, qt.Equals(pool.Misuses(), uint64(0)))
	for r, err := range pool.Log().Records() {
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsNil(r.Verify()))
		qt.Check(t, qt.Equals(r.Length, int64(1000)))
	}
}

// TestPipe moves frames both ways without copying, until the other end takes no more.
func TestPipe(t *testing.T) {
	m := newMemory(t, netmap.MemoryOptions{Buffers: 512})
	a := openIn(t, nil, "netmap:p{x", netmap.Options{Slots: 32, Memory: m})
	// What is sent before the other end is there waits for it.
	place := &a.TX(0).Buf(a.TX(0).Slot(0))[0]
	put(t, a.TX(0), frame(0, 60), 60)
	qt.Assert(t, qt.IsNil(a.TxSync()))
	b := openIn(t, nil, "netmap:p}x", netmap.Options{Slots: 32, Memory: m})
	qt.Assert(t, qt.IsNil(b.RxSync()))
	qt.Check(t, qt.Equals(&b.RX(0).Buf(b.RX(0).Slot(0))[0], place))
	qt.Check(t, qt.HasLen(recv(t, b, 1), 1))

	for _, way := range [][2]*netmap.Port{{a, b}, {b, a}} {
		sent, got := 0, 0
		for got < 1000 {
			for put(t, way[0].TX(0), frame(sent, 60+sent%1000), 1024) {
				sent++
			}
			qt.Assert(t, qt.IsNil(way[0].TxSync()))
			for _, f := range recv(t, way[1], 1) {
				same(t, f, frame(got, 60+got%1000))
				got++
			}
		}
	}
	for a.TX(0).Space() > 0 { // nobody takes
		for put(t, a.TX(0), frame(1, 60), 60) {
		}
		qt.Assert(t, qt.IsNil(a.TxSync()))
	}
	got, err := a.Poll(netmap.Out, 0)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(got, netmap.Events(0)))
	recv(t, b, 31)
	got, err = a.Poll(netmap.Out, -1)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(got, netmap.Out))

	_, err = tryOpen(t, nil, "netmap:p}x", netmap.Options{Memory: m})
	qt.Check(t, qt.ErrorIs(err, netmap.ErrBusy))
	qt.Assert(t, qt.IsNil(a.Close()))
	qt.Assert(t, qt.IsNil(b.Close()))
	all := make([]uint32, 512)
	qt.Check(t, qt.Equals(m.Alloc(all), 510))
}

// TestNull is a port that is no device: its memory is what it is for.
func TestNull(t *testing.T) {
	p := openIn(t, nil, "netmap:dummy_x@conf:rings=2,slots=64", netmap.Options{})
	qt.Check(t, qt.Equals(p.NumTX(), 2))
	for range 10 {
		for put(t, p.TX(1), frame(1, 60), 60) {
		}
		qt.Assert(t, qt.IsNil(p.TxSync()))
	}
	st, err := p.Stats()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(st.TX[1].Frames, uint64(630)))
	qt.Assert(t, qt.IsNil(p.RxSync()))
	qt.Check(t, qt.IsTrue(p.RX(0).Empty()))

	s := spec(t, "netmap:memory")
	s.Mode = portspec.Null
	n, err := netmap.OpenSpec(t.Context(), s, netmap.Options{})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(n.NumRX(), 0))
	qt.Check(t, qt.Equals(n.Memory(), p.Memory()))
	qt.Check(t, qt.IsNil(n.Close()))

	s.Conf = portspec.Conf{TxRings: 10, RxRings: 5, TxSlots: 256, RxSlots: 100}
	n, err = netmap.OpenSpec(t.Context(), s, netmap.Options{})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals([]int{n.NumTX(), n.NumRX(), int(n.TX(9).NumSlots), int(n.RX(4).NumSlots)}, []int{10, 5, 256, 100}))
	qt.Check(t, qt.IsNil(n.TxSync()))
	qt.Check(t, qt.IsNil(n.Close()))
}

// TestMemories finds a port's memory by file, number and other port.
func TestMemories(t *testing.T) {
	pool := newPool(t)
	path := pool.Path()
	qt.Assert(t, qt.IsNil(pool.Close()))
	p := openIn(t, nil, "netmap:m{1@conf:slots=64@extmem:file="+path, netmap.Options{})
	plain := filepath.Join(filepath.Dir(path), "plain")
	qt.Assert(t, qt.IsNil(os.WriteFile(plain, make([]byte, 4<<20), 0o600)))
	q := openIn(t, nil, "netmap:n{1@conf:slots=64@extmem="+plain, netmap.Options{})
	qt.Check(t, qt.Equals(q.Memory().BufSize(), 2048))
	same := openIn(t, nil, "netmap:n}1@conf:slots=64@share=netmap:n{1", netmap.Options{})
	qt.Check(t, qt.Equals(same.Memory(), q.Memory()))
	byID, err := netmap.OpenSpec(t.Context(), portspec.Spec{Name: "m", Pipe: "1", End: portspec.Slave, MemID: int(p.Memory().ID())}, netmap.Options{Slots: 64})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(byID.Memory(), p.Memory()))
	qt.Check(t, qt.IsNil(byID.Close()))
	_, err = tryOpen(t, nil, "netmap:m}1@conf:slots=64", netmap.Options{})
	qt.Check(t, qt.ErrorIs(err, netmap.ErrBusy), qt.Commentf("another memory than the other end's"))
	_, err = tryOpen(t, nil, "netmap:m{9@conf:slots=20000", netmap.Options{Memory: newMemory(t, netmap.MemoryOptions{Buffers: 64})})
	qt.Check(t, qt.ErrorIs(err, netmap.ErrNoMemory))
}
