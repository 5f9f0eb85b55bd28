package xsk_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/internal/testkernel"
	"github.com/pastenet/paste/xsk"
)

// frame builds the n-th test frame: an Ethernet header of an experimental type, n, and
// random bytes.
func frame(dst, src end, n int, size int) []byte {
	b := make([]byte, 0, size)
	b = append(b, dst.mac...)
	b = append(b, src.mac...)
	b = binary.BigEndian.AppendUint16(b, 0x88b5)
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)})
	rest := make([]byte, size-len(b))
	r.Read(rest)
	return append(b, rest...)
}

// isTest tells test frames from what a kernel says on its own.
func isTest(b []byte) bool { return len(b) >= 18 && bytes.Equal(b[12:14], []byte{0x88, 0xb5}) }

// exchange sends count frames from tx to rx and compares what arrives. tx uses the
// frames of its Umem from txFirst on and rx those from rxFirst on, 64 each.
func exchange(t *testing.T, tx, rx *xsk.Socket, txU, rxU *xsk.Umem, from, to end, txFirst, rxFirst, count int) {
	t.Helper()
	want := make(map[uint32][32]byte, count)
	qt.Assert(t, qt.Equals(rx.FillFrames(frames(rxFirst, rxFirst+64)), 64))

	free := frames(txFirst, txFirst+64)
	descs := make([]xsk.Desc, 16)
	addrs := make([]uint64, 16)
	sent, got := 0, 0
	until(t, "all frames", func() bool {
		for sent < count && len(free) > 0 && tx.TxFree() > 0 && sent-got < 48 {
			f := free[len(free)-1]
			free = free[:len(free)-1]
			d := xsk.Desc{Addr: uint64(f)*frameSize + 64, Len: uint32(64 + (sent*37)%1400)}
			b := frame(to, from, sent, int(d.Len))
			copy(txU.Bytes(d), b)
			want[uint32(sent)] = sha256.Sum256(b)
			qt.Assert(t, qt.Equals(tx.Transmit([]xsk.Desc{d}), 1))
			sent++
		}
		kick(t, tx)
		for _, a := range addrs[:tx.Complete(addrs)] {
			free = append(free, uint32(a/frameSize))
		}
		for _, d := range descs[:rx.Receive(descs)] {
			if b := rxU.Bytes(d); isTest(b) {
				n := binary.BigEndian.Uint32(b[14:])
				qt.Assert(t, qt.Equals(sha256.Sum256(b), want[n]))
				delete(want, n)
				got++
			}
			qt.Assert(t, qt.Equals(rx.Fill([]uint64{d.Addr}), 1))
		}
		return got == count && len(free) == 64
	})
	qt.Assert(t, qt.HasLen(want, 0))
	st, err := rx.Stats()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(st.RxInvalidDescs+st.RxDropped+st.RxRingFull, 0))
	st, err = tx.Stats()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(st.TxInvalidDescs, 0))
}

func TestExchangeBothWays(t *testing.T) {
	p := newPair(t, 1)
	un := newUmem(t, anonymous(t, 128*frameSize), xsk.UmemConfig{})
	uf := newUmem(t, anonymous(t, 128*frameSize), xsk.UmemConfig{Headroom: 128})
	sn, sf := mustOpen(t, p.near, 0, un), mustOpen(t, p.far, 0, uf)
	steer(t, p.near, sn.Fd())
	steer(t, p.far, sf.Fd())
	exchange(t, sn, sf, un, uf, p.near, p.far, 0, 64, 2000)
	exchange(t, sf, sn, uf, un, p.far, p.near, 0, 64, 2000)
}

func TestKindsOfMemory(t *testing.T) {
	netlabtest.RequireRoot(t)
	const size = 128 * frameSize
	kinds := map[string]func(t *testing.T) []byte{
		"anonymous": func(t *testing.T) []byte { return anonymous(t, size) },
		"memfd": func(t *testing.T) []byte {
			fd, err := unix.MemfdCreate("xk", unix.MFD_CLOEXEC)
			qt.Assert(t, qt.IsNil(err))
			defer unix.Close(fd)
			qt.Assert(t, qt.IsNil(unix.Ftruncate(fd, size)))
			return mapFd(t, fd, size, unix.MAP_SHARED)
		},
		"tmpfs": func(t *testing.T) []byte {
			f, err := os.CreateTemp(mountTmpfs(t), "pool")
			qt.Assert(t, qt.IsNil(err))
			defer f.Close()
			qt.Assert(t, qt.IsNil(f.Truncate(size)))
			return mapFd(t, int(f.Fd()), size, unix.MAP_SHARED)
		},
		"hugetlb": func(t *testing.T) []byte {
			testkernel.SkipWithout(t, "HUGETLBFS")
			allowHugePage(t)
			const huge = 2 << 20
			fd, err := unix.MemfdCreate("xk", unix.MFD_CLOEXEC|unix.MFD_HUGETLB|21<<unix.MFD_HUGE_SHIFT)
			qt.Assert(t, qt.IsNil(err))
			defer unix.Close(fd)
			qt.Assert(t, qt.IsNil(unix.Ftruncate(fd, huge)))
			return mapFd(t, fd, huge, unix.MAP_SHARED)
		},
	}
	for name, mem := range kinds {
		t.Run(name, func(t *testing.T) {
			u := newUmem(t, mem(t), xsk.UmemConfig{})
			p := newPair(t, 1)
			// One memory on both ends, and so in two namespaces.
			sn, sf := mustOpen(t, p.near, 0, u), mustOpen(t, p.far, 0, u)
			steer(t, p.near, sn.Fd())
			steer(t, p.far, sf.Fd())
			exchange(t, sn, sf, u, u, p.near, p.far, 0, 64, 500)
		})
	}
}

func TestSharedAcrossQueues(t *testing.T) {
	p := newPair(t, 2)
	un := newUmem(t, anonymous(t, 256*frameSize), xsk.UmemConfig{})
	uf := newUmem(t, anonymous(t, 256*frameSize), xsk.UmemConfig{})
	n := []*xsk.Socket{mustOpen(t, p.near, 0, un), mustOpen(t, p.near, 1, un)}
	f := []*xsk.Socket{mustOpen(t, p.far, 0, uf), mustOpen(t, p.far, 1, uf)}
	steer(t, p.near, n[0].Fd(), n[1].Fd())
	steer(t, p.far, f[0].Fd(), f[1].Fd())
	for q := range 2 {
		qt.Check(t, qt.Equals(f[q].Queue(), q))
		qt.Check(t, qt.Equals(f[q].Ifindex(), p.far.index))
		// Frames leave on queue q and arrive on queue q, none on the other.
		exchange(t, n[q], f[q], un, uf, p.near, p.far, 128*q, 128*q+64, 500)
		got := make([]xsk.Desc, 1)
		qt.Check(t, qt.Equals(f[1-q].Receive(got), 0))
	}
}

// TestForwardBetweenDevices receives on one device and sends the very same frames on
// another one, without touching a byte.
func TestForwardBetweenDevices(t *testing.T) {
	in, out := newPair(t, 1), newPair(t, 1)
	u := newUmem(t, anonymous(t, 64*frameSize), xsk.UmemConfig{})
	peers := newUmem(t, anonymous(t, 128*frameSize), xsk.UmemConfig{})
	src, dst := mustOpen(t, in.near, 0, peers), mustOpen(t, out.near, 0, peers)
	rx, tx := mustOpen(t, in.far, 0, u), mustOpen(t, out.far, 0, u)
	steer(t, in.near)
	steer(t, in.far, rx.Fd())
	steer(t, out.near, dst.Fd())
	steer(t, out.far)
	qt.Assert(t, qt.Equals(rx.FillFrames(frames(0, 64)), 64))
	qt.Assert(t, qt.Equals(dst.FillFrames(frames(64, 128)), 64))

	const count = 32
	var want [][]byte
	for i := range count {
		d := xsk.Desc{Addr: uint64(i) * frameSize, Len: uint32(100 + i)}
		b := frame(in.far, in.near, i, int(d.Len))
		copy(peers.Bytes(d), b)
		want = append(want, b)
		qt.Assert(t, qt.Equals(src.Transmit([]xsk.Desc{d}), 1))
	}
	descs := make([]xsk.Desc, 8)
	var got [][]byte
	addrs := make([]uint64, count)
	until(t, "forwarded frames", func() bool {
		kick(t, src)
		n := rx.Receive(descs)
		qt.Assert(t, qt.Equals(tx.Transmit(descs[:n]), n))
		kick(t, tx)
		for _, d := range descs[:dst.Receive(descs)] {
			got = append(got, bytes.Clone(peers.Bytes(d)))
		}
		return len(got) == count
	})
	qt.Assert(t, qt.DeepEquals(got, want))
	until(t, "completions", func() bool { return tx.CompletePending() == count })
	qt.Assert(t, qt.Equals(tx.Complete(addrs), count))
	qt.Assert(t, qt.Equals(rx.Fill(addrs), count))
}

// TestTwoRegistrations has sockets that the kernel cannot let share one registration.
func TestTwoRegistrations(t *testing.T) {
	p := newPair(t, 1)
	u := newUmem(t, anonymous(t, 128*frameSize), xsk.UmemConfig{})
	sn := mustOpen(t, p.near, 0, u)
	sf, err := openAt(t, p.far, u, xsk.Options{RxSize: ringSize, TxSize: ringSize, NeedWakeup: true})
	qt.Assert(t, qt.IsNil(err))
	steer(t, p.near, sn.Fd())
	steer(t, p.far, sf.Fd())
	exchange(t, sn, sf, u, u, p.near, p.far, 0, 64, 200)
	qt.Check(t, qt.IsTrue(sf.TxNeedsWakeup()))
	qt.Check(t, qt.IsFalse(sf.FillNeedsWakeup()))
	qt.Check(t, qt.IsNil(sf.WakeRx()))
}

// TestFirstSocketCloses: the others, and new ones, do without the one that registered the memory.
func TestFirstSocketCloses(t *testing.T) {
	p, other := newPair(t, 1), newPair(t, 1)
	u := newUmem(t, anonymous(t, 256*frameSize), xsk.UmemConfig{})
	first := mustOpen(t, other.near, 0, u)
	sn := mustOpen(t, p.near, 0, u)
	qt.Assert(t, qt.IsNil(first.Close()))
	sf := mustOpen(t, p.far, 0, u)
	steer(t, p.near, sn.Fd())
	steer(t, p.far, sf.Fd())
	exchange(t, sn, sf, u, u, p.near, p.far, 0, 64, 100)
}

func kick(t testing.TB, s *xsk.Socket) {
	t.Helper()
	if s.TxPending() == 0 {
		return
	}
	if err := s.KickTx(); err != nil {
		qt.Assert(t, qt.ErrorIs(err, xsk.ErrAgain))
	}
}
