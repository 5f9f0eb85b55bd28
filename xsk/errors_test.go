package xsk_test

import (
	"io/fs"
	"net"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/xsk"
)

func TestNewUmemRefuses(t *testing.T) {
	mem := anonymous(t, 16*4096)
	page := os.Getpagesize()
	for name, c := range map[string]struct {
		mem  []byte
		cfg  xsk.UmemConfig
		want string
	}{
		"no memory":      {nil, xsk.UmemConfig{FrameSize: 2048}, "new umem: no memory"},
		"unaligned":      {mem[2048:], xsk.UmemConfig{FrameSize: 2048}, "new umem: memory does not start on a page boundary.*"},
		"odd length":     {mem[:page+100], xsk.UmemConfig{FrameSize: 2048}, "new umem: length .* is not a multiple of the frame size 2048"},
		"small frames":   {mem, xsk.UmemConfig{FrameSize: 1024}, "new umem: frame size 1024 is not a power of two.*"},
		"odd frames":     {mem, xsk.UmemConfig{FrameSize: 3000}, "new umem: frame size 3000 is not a power of two.*"},
		"huge frames":    {mem, xsk.UmemConfig{FrameSize: 2 * page}, "new umem: frame size .* is not a power of two.*"},
		"headroom":       {mem, xsk.UmemConfig{FrameSize: 2048, Headroom: 2048 - 256}, "new umem: headroom 1792 leaves no room.*"},
		"metadata":       {mem, xsk.UmemConfig{FrameSize: 2048, TxMetadataLen: 20}, "new umem: TX metadata length 20.*"},
		"short metadata": {mem, xsk.UmemConfig{FrameSize: 2048, TxMetadataLen: 8}, "new umem: TX metadata length 8.*"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := xsk.NewUmem(c.mem, c.cfg)
			qt.Assert(t, qt.ErrorMatches(err, c.want))
		})
	}
}

func TestOpenRefusesOptions(t *testing.T) {
	u := newUmem(t, anonymous(t, 16*frameSize), xsk.UmemConfig{})
	for name, c := range map[string]struct {
		o    xsk.Options
		want string
	}{
		"no interface": {xsk.Options{RxSize: 64}, ".*interface index 0 is not valid"},
		"no rings":     {xsk.Options{Ifindex: 1}, ".*queue 0 of lo: neither an RX nor a TX ring was asked for"},
		"odd ring":     {xsk.Options{Ifindex: 1, TxSize: 100}, ".*size 100 of the TX ring is not a power of two"},
		"queue":        {xsk.Options{Ifindex: 1, Queue: -1, TxSize: 64}, ".*queue -1 is not valid"},
		"mode":         {xsk.Options{Ifindex: 1, Mode: 9, TxSize: 64}, `.*unknown mode BindMode\(9\)`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := xsk.Open(u, c.o)
			qt.Assert(t, qt.ErrorMatches(err, c.want))
		})
	}
}

func TestModes(t *testing.T) {
	p := newPair(t, 1)
	u := newUmem(t, anonymous(t, 16*frameSize), xsk.UmemConfig{})

	_, err := openAt(t, p.near, u, xsk.Options{RxSize: 64, Mode: xsk.ZeroCopy})
	qt.Assert(t, qt.ErrorIs(err, xsk.ErrNotSupported))
	qt.Assert(t, qt.ErrorIs(err, error(unix.EOPNOTSUPP)))
	qt.Assert(t, qt.ErrorMatches(err, "open AF_XDP socket on queue 0 of "+p.near.name+": the driver of "+p.near.name+" has no AF_XDP zero-copy.*"))

	auto, err := openAt(t, p.near, u, xsk.Options{RxSize: 64})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsFalse(auto.ZeroCopy()))
	qt.Check(t, qt.Equals(auto.Mode(), xsk.Copy))

	// Beside an open copy-mode socket, too.
	_, err = openAt(t, p.far, u, xsk.Options{RxSize: 64, Mode: xsk.ZeroCopy})
	qt.Check(t, qt.ErrorIs(err, xsk.ErrNotSupported))
	cp, err := openAt(t, p.far, u, xsk.Options{TxSize: 64, Mode: xsk.Copy})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(cp.Mode(), xsk.Copy))
}

func TestBusyQueue(t *testing.T) {
	p := newPair(t, 1)
	u := newUmem(t, anonymous(t, 16*frameSize), xsk.UmemConfig{})
	other := newUmem(t, anonymous(t, 16*frameSize), xsk.UmemConfig{})
	s := mustOpen(t, p.near, 0, u)
	tries := xsk.SetSettleTries(10)
	for name, v := range map[string]*xsk.Umem{"same umem": u, "other umem": other} {
		_, err := openAt(t, p.near, v, xsk.Options{RxSize: 64})
		qt.Check(t, qt.ErrorIs(err, xsk.ErrBusy), qt.Commentf(name))
		qt.Check(t, qt.ErrorMatches(err, ".*queue 0 of "+p.near.name+" is in use by another AF_XDP socket: .*"))
	}
	xsk.SetSettleTries(tries)
	qt.Assert(t, qt.IsNil(s.Close()))
	_, err := openAt(t, p.near, other, xsk.Options{RxSize: 64})
	qt.Assert(t, qt.IsNil(err))
}

func TestNoSuchQueueOrDevice(t *testing.T) {
	p := newPair(t, 1)
	u := newUmem(t, anonymous(t, 16*frameSize), xsk.UmemConfig{})
	_, err := openAt(t, p.near, u, xsk.Options{Queue: 7, RxSize: 64})
	qt.Check(t, qt.ErrorIs(err, xsk.ErrNoSuchQueue))
	qt.Check(t, qt.ErrorMatches(err, ".*queue 7 of "+p.near.name+" does not exist.*"))

	_, err = openAt(t, end{ns: p.near.ns, index: 1 << 20}, u, xsk.Options{RxSize: 64})
	qt.Check(t, qt.ErrorIs(err, error(unix.ENODEV)))
	qt.Check(t, qt.ErrorMatches(err, ".*interface 1048576 does not exist in this network namespace.*"))
}

// diskDir returns a directory on something that is not memory.
func diskDir(t *testing.T) string {
	t.Helper()
	for _, dir := range []string{t.TempDir(), ".", "/var/tmp"} {
		var st unix.Statfs_t
		qt.Assert(t, qt.IsNil(unix.Statfs(dir, &st)))
		if st.Type != unix.TMPFS_MAGIC && st.Type != unix.RAMFS_MAGIC {
			return dir
		}
	}
	t.Fatal("no directory on a disk: everything is tmpfs")
	return ""
}

func TestMemoryThatCannotBeUmem(t *testing.T) {
	p := newPair(t, 1)
	const size = 16 * frameSize

	f, err := os.CreateTemp(diskDir(t), "xk-pool")
	qt.Assert(t, qt.IsNil(err))
	defer os.Remove(f.Name())
	defer f.Close()
	qt.Assert(t, qt.IsNil(f.Truncate(size)))
	u := newUmem(t, mapFd(t, int(f.Fd()), size, unix.MAP_SHARED), xsk.UmemConfig{})
	_, err = openAt(t, p.near, u, xsk.Options{RxSize: 64})
	qt.Check(t, qt.ErrorIs(err, xsk.ErrMemory))
	qt.Check(t, qt.ErrorMatches(err, ".*register UMEM: memory cannot be a UMEM: mapping of /.*xk-pool.*neither a file on fs-DAX nor an ordinary disk file.*"))

	ro := anonymous(t, size)
	qt.Assert(t, qt.IsNil(unix.Mprotect(ro, unix.PROT_READ)))
	_, err = openAt(t, p.near, newUmem(t, ro, xsk.UmemConfig{}), xsk.Options{RxSize: 64})
	qt.Check(t, qt.ErrorIs(err, xsk.ErrMemory))
	qt.Check(t, qt.ErrorMatches(err, ".*is not writable.*"))
}

// withoutCap runs f on a thread of its own that has lost one capability.
func withoutCap(t *testing.T, capability uint, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		err := unix.Capget(&hdr, &data[0])
		if err == nil {
			data[capability/32].Effective &^= 1 << (capability % 32)
			err = unix.Capset(&hdr, &data[0])
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	qt.Assert(t, qt.IsNil(<-done))
}

func TestPrivileges(t *testing.T) {
	netlabtest.RequireRoot(t)
	u := newUmem(t, anonymous(t, 64*frameSize), xsk.UmemConfig{})
	var err error
	withoutCap(t, unix.CAP_NET_RAW, func() { _, err = xsk.Open(u, xsk.Options{Ifindex: 1, RxSize: 64}) })
	qt.Check(t, qt.ErrorIs(err, fs.ErrPermission))
	qt.Check(t, qt.ErrorMatches(err, ".*needs CAP_NET_RAW"))

	var old unix.Rlimit
	qt.Assert(t, qt.IsNil(unix.Getrlimit(unix.RLIMIT_MEMLOCK, &old)))
	qt.Assert(t, qt.IsNil(unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 4096, Max: old.Max})))
	defer unix.Setrlimit(unix.RLIMIT_MEMLOCK, &old)
	withoutCap(t, unix.CAP_IPC_LOCK, func() { _, err = xsk.Open(u, xsk.Options{Ifindex: 1, RxSize: 64}) })
	qt.Check(t, qt.ErrorIs(err, xsk.ErrMemory))
	qt.Check(t, qt.ErrorMatches(err, ".*cannot pin 131072 bytes; raise RLIMIT_MEMLOCK.*"))
}

func TestCloseReleasesEverything(t *testing.T) {
	p := newPair(t, 1)
	u := newUmem(t, anonymous(t, 64*frameSize), xsk.UmemConfig{})
	files, rings := openFiles(t), mappings(t, "socket:")
	for range 20 { // also: a queue that was just given back can be bound again
		s := mustOpen(t, p.near, 0, u)
		qt.Assert(t, qt.Equals(mappings(t, "socket:"), rings+4))
		qt.Assert(t, qt.ErrorMatches(u.Close(), "close umem: 1 of its sockets are still open"))
		qt.Assert(t, qt.IsNil(s.Close()))
	}
	for range 5 { // failures after the rings were made
		_, err := openAt(t, p.near, u, xsk.Options{Queue: 3, RxSize: 64, TxSize: 64})
		qt.Assert(t, qt.ErrorIs(err, xsk.ErrNoSuchQueue))
	}
	qt.Check(t, qt.Equals(openFiles(t), files))
	qt.Check(t, qt.Equals(mappings(t, "socket:"), rings))

	qt.Assert(t, qt.IsNil(u.Close()))
	qt.Assert(t, qt.IsNil(u.Close()))
	_, err := openAt(t, p.near, u, xsk.Options{RxSize: 64})
	qt.Assert(t, qt.ErrorIs(err, net.ErrClosed))
}

func TestUseAfterClose(t *testing.T) {
	p := newPair(t, 1)
	u := newUmem(t, anonymous(t, 64*frameSize), xsk.UmemConfig{})
	s := mustOpen(t, p.near, 0, u)
	qt.Assert(t, qt.Equals(s.FillFrames(frames(0, 8)), 8))
	qt.Assert(t, qt.IsNil(s.Close()))
	qt.Assert(t, qt.IsNil(s.Close()))

	qt.Check(t, qt.Equals(s.Fd(), -1))
	qt.Check(t, qt.Equals(s.Fill([]uint64{0})+s.FillFrames([]uint32{0})+s.FillFree(), 0))
	qt.Check(t, qt.Equals(s.Receive(make([]xsk.Desc, 1))+s.Transmit(make([]xsk.Desc, 1))+s.TxFree()+s.TxPending(), 0))
	qt.Check(t, qt.Equals(s.Complete(make([]uint64, 1))+s.CompletePending(), 0))
	qt.Check(t, qt.ErrorIs(s.KickTx(), net.ErrClosed))
	qt.Check(t, qt.ErrorIs(s.WakeRx(), net.ErrClosed))
	_, err := s.Stats()
	qt.Check(t, qt.ErrorIs(err, net.ErrClosed))
}

// TestAbsentRings: a ring that was not asked for is one of size 0.
func TestAbsentRings(t *testing.T) {
	p := newPair(t, 1)
	u := newUmem(t, anonymous(t, 64*frameSize), xsk.UmemConfig{})
	rx, err := openAt(t, p.near, u, xsk.Options{RxSize: 64})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(rx.Transmit(make([]xsk.Desc, 1))+rx.TxFree()+rx.TxPending()+rx.TxBudget(), 0))
	qt.Check(t, qt.ErrorIs(rx.KickTx(), error(unix.ENOBUFS)))
	qt.Check(t, qt.Equals(rx.FillFree(), 64))
	tx, err := openAt(t, p.far, u, xsk.Options{TxSize: 128})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(tx.Receive(make([]xsk.Desc, 1)), 0))
	qt.Check(t, qt.Equals(tx.TxFree(), 128))
}

func TestDeviceDown(t *testing.T) {
	p := newPair(t, 1)
	u := newUmem(t, anonymous(t, 64*frameSize), xsk.UmemConfig{})
	s := mustOpen(t, p.near, 0, u)
	down(t, p.near)
	err := s.KickTx()
	qt.Check(t, qt.ErrorIs(err, error(unix.ENETDOWN)))
	qt.Check(t, qt.ErrorMatches(err, "kick TX on queue 0 of "+p.near.name+": .*ip link set .* up.*"))
}

func TestBytes(t *testing.T) {
	mem := anonymous(t, 16*frameSize)
	u := newUmem(t, mem, xsk.UmemConfig{})
	qt.Check(t, qt.Equals(u.Frames(), 16))
	qt.Check(t, qt.Equals(u.FrameSize(), frameSize))
	qt.Check(t, qt.Equals(unsafe.SliceData(u.Mem()), &mem[0]))
	b := u.Bytes(xsk.Desc{Addr: 3 * frameSize, Len: 10})
	qt.Check(t, qt.Equals(&b[0], &mem[3*frameSize]))
	qt.Check(t, qt.Equals(cap(b), 10))
	qt.Check(t, qt.PanicMatches(func() { u.Bytes(xsk.Desc{Addr: uint64(len(mem)), Len: 1}) }, ".*out of range.*"))
}
