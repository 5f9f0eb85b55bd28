package xsk_test

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/go-quicktest/qt"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/internal/testwait"
	"github.com/pastenet/paste/xsk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	frameSize = 2048
	ringSize  = 256
)

// pair is a veth pair, its ends in two network namespaces.
type pair struct{ near, far end }

// end is one side of a veth pair.
type end struct {
	ns    *netlab.Netns
	name  string
	index int
	mac   net.HardwareAddr
}

// newPair makes a pair with the given number of queues and without traffic of the
// kernel's own.
func newPair(t testing.TB, queues int) pair {
	t.Helper()
	l := netlabtest.New(t, netlab.Config{Prefix: "xk", Queues: queues, Quiet: true})
	qt.Assert(t, qt.IsNil(rlimit.RemoveMemlock()))
	look := func(ns *netlab.Netns, name string) (e end) {
		netlabtest.In(t, ns, func() {
			l, err := netlink.LinkByName(name)
			qt.Assert(t, qt.IsNil(err))
			e = end{ns: ns, name: name, index: l.Attrs().Index, mac: l.Attrs().HardwareAddr}
		})
		return e
	}
	return pair{look(l.Server, l.ServerDev), look(l.Client, l.ClientDev)}
}

// openAt opens a socket in the namespace of e.
func openAt(t testing.TB, e end, u *xsk.Umem, o xsk.Options) (s *xsk.Socket, err error) {
	t.Helper()
	o.Ifindex = e.index
	netlabtest.In(t, e.ns, func() { s, err = xsk.Open(u, o) })
	if err == nil {
		t.Cleanup(func() { s.Close() })
	}
	return s, err
}

// mustOpen opens a socket with all four rings.
func mustOpen(t testing.TB, e end, queue int, u *xsk.Umem) *xsk.Socket {
	t.Helper()
	s, err := openAt(t, e, u, xsk.Options{Queue: queue, FillSize: ringSize, CompSize: ringSize, RxSize: ringSize, TxSize: ringSize})
	qt.Assert(t, qt.IsNil(err))
	return s
}

// steer attaches an XDP program to e that sends every frame to the AF_XDP socket of its
// queue: fds[queue].
func steer(t testing.TB, e end, fds ...int) {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 16})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { m.Close() })
	attachXDP(t, e, redirectToQueue(m))
	for queue, fd := range fds {
		qt.Assert(t, qt.IsNil(m.Put(uint32(queue), uint32(fd))))
	}
}

// redirectToQueue is: return bpf_redirect_map(&m, ctx->rx_queue_index, XDP_PASS).
func redirectToQueue(m *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 16, asm.Word), // struct xdp_md: rx_queue_index
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Imm(asm.R3, 2), // XDP_PASS where the map has no socket
		asm.FnRedirectMap.Call(),
		asm.Return(),
	}
}

// attachXDP attaches a program in native mode, as any fast user would.
func attachXDP(t testing.TB, e end, insns asm.Instructions) {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: insns})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { prog.Close() })
	var l link.Link
	netlabtest.In(t, e.ns, func() {
		l, err = link.AttachXDP(link.XDPOptions{Program: prog, Interface: e.index, Flags: link.XDPDriverMode})
	})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { l.Close() })
}

// anonymous maps memory without a file.
func anonymous(t testing.TB, size int) []byte {
	t.Helper()
	return mapFd(t, -1, size, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
}

func mapFd(t testing.TB, fd, size, flags int) []byte {
	t.Helper()
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, flags)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(unix.Munmap(mem))) })
	return mem
}

func newUmem(t testing.TB, mem []byte, cfg xsk.UmemConfig) *xsk.Umem {
	t.Helper()
	cfg.FrameSize = frameSize
	u, err := xsk.NewUmem(mem, cfg)
	qt.Assert(t, qt.IsNil(err))
	return u
}

// frames returns the numbers from..to-1.
func frames(from, to int) []uint32 {
	var f []uint32
	for i := from; i < to; i++ {
		f = append(f, uint32(i))
	}
	return f
}

// until calls step until it reports true; it fails the test when that takes absurdly long.
func until(t testing.TB, what string, step func() bool) {
	t.Helper()
	testwait.Until(t, what, step)
}

// mappings counts the lines of /proc/self/maps that contain what.
func mappings(t testing.TB, what string) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	qt.Assert(t, qt.IsNil(err))
	return strings.Count(string(b), what)
}

// openFiles counts this process's descriptors.
func openFiles(t testing.TB) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	qt.Assert(t, qt.IsNil(err))
	return len(d)
}

// mountTmpfs returns an empty directory on a tmpfs of its own.
func mountTmpfs(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	qt.Assert(t, qt.IsNil(unix.Mount("xk", dir, "tmpfs", 0, "size=16m")))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(unix.Unmount(dir, unix.MNT_DETACH))) })
	return dir
}

// allowHugePage lets the kernel make two more 2 MiB pages on demand for as long as the test runs.
func allowHugePage(t testing.TB) {
	t.Helper()
	const knob = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages"
	old, err := os.ReadFile(knob)
	qt.Assert(t, qt.IsNil(err))
	n, err := strconv.Atoi(strings.TrimSpace(string(old)))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(knob, []byte(strconv.Itoa(n+2)), 0)))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(os.WriteFile(knob, old, 0))) })
}

func down(t testing.TB, e end) {
	t.Helper()
	netlabtest.In(t, e.ns, func() {
		l, err := netlink.LinkByIndex(e.index)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(netlink.LinkSetDown(l)))
	})
}
