package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/go-quicktest/qt"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func attachPinned(t *testing.T, p *pair, dir string) SteerInfo {
	t.Helper()
	s, err := AttachSteer(t.Context(), SteerOptions{NIC: p.nic, Pin: true, BPFFS: dir})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(s.Close()))
	return s.Info()
}

// assertClean checks that dir is as bpffsDir made it and the NIC is free.
func assertClean(t *testing.T, p *pair, dir string) {
	t.Helper()
	qt.Assert(t, qt.Equals(p.xdp(t), 0))
	mounted, err := isBPFFS(dir)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsFalse(mounted))
	entries, err := os.ReadDir(dir)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(entries, 0))
}

// assertProgGone waits until the kernel has freed a program; it does so after
// an RCU grace period.
func assertProgGone(t *testing.T, id uint32) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(time.Millisecond) {
		prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
		if errors.Is(err, os.ErrNotExist) {
			return
		}
		qt.Assert(t, qt.IsNil(err))
		prog.Close()
		qt.Assert(t, qt.IsTrue(time.Now().Before(deadline)), qt.Commentf("program %d is still loaded", id))
	}
}

func TestPinnedLife(t *testing.T) {
	p, dir := newPair(t), bpffsDir(t)

	infos, err := ListSteer(t.Context(), dir)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(infos, 0))
	_, err = OpenSteer(t.Context(), dir, p.nic)
	qt.Assert(t, qt.ErrorIs(err, ErrNotAttached))
	qt.Assert(t, qt.ErrorIs(DetachSteer(t.Context(), dir, p.nic), ErrNotAttached))
	assertClean(t, p, dir)

	info := attachPinned(t, p, dir)
	qt.Check(t, qt.IsTrue(info.Pinned))
	qt.Check(t, qt.Equals(info.Mode, ModeNative))
	qt.Check(t, qt.Equals(p.xdp(t), info.ProgID))

	// Attached already: nothing changes, whatever mode agrees with it.
	qt.Check(t, qt.Equals(attachPinned(t, p, dir), info))
	_, err = AttachSteer(t.Context(), SteerOptions{NIC: p.nic, Mode: ModeGeneric, Pin: true, BPFFS: dir})
	qt.Check(t, qt.ErrorIs(err, ErrOtherMode))
	_, err = AttachSteer(t.Context(), SteerOptions{NIC: p.nic})
	qt.Check(t, qt.ErrorIs(err, ErrAttachedByOther))
	out, err := helper(t, fmt.Sprintf("attach %s %s", p.nic, dir), 0)
	qt.Check(t, qt.IsNil(err), qt.Commentf("%s", out))

	infos, err = ListSteer(t.Context(), dir)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(infos, []SteerInfo{info}))

	// Ports outlive the process that added them, until they are reset.
	s, err := OpenSteer(t.Context(), dir, p.nic)
	qt.Assert(t, qt.IsNil(err))
	for _, port := range []uint16{80, 65535, 256, 80} {
		qt.Assert(t, qt.IsNil(s.AddPort(port, 0)))
	}
	qt.Assert(t, qt.IsNil(s.RemovePort(256)))
	qt.Assert(t, qt.IsNil(s.RemovePort(256)))
	qt.Assert(t, qt.IsNotNil(s.AddPort(0, 0)))
	qt.Assert(t, qt.IsNil(s.Close()))
	s, err = OpenSteer(t.Context(), dir, p.nic)
	qt.Assert(t, qt.IsNil(err))
	defer s.Close()
	ports, err := s.Ports()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(ports, []uint16{80, 65535}))
	qt.Assert(t, qt.IsNil(s.Reset()))
	ports, err = s.Ports()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(ports, 0))

	// Detaching takes effect although somebody has it open.
	qt.Assert(t, qt.IsNil(DetachSteer(t.Context(), dir, p.nic)))
	assertClean(t, p, dir)
	qt.Assert(t, qt.ErrorIs(DetachSteer(t.Context(), dir, p.nic), ErrNotAttached))
	qt.Assert(t, qt.IsNil(s.Close()))
	assertProgGone(t, info.ProgID)
}

func TestPortsFull(t *testing.T) {
	p := newPair(t)
	s, err := AttachSteer(t.Context(), SteerOptions{NIC: p.nic})
	qt.Assert(t, qt.IsNil(err))
	defer s.Close()
	limit := int(s.maps.SteerPorts.MaxEntries())
	for port := range limit {
		qt.Assert(t, qt.IsNil(s.AddPort(uint16(port+1), 0)))
	}
	err = s.AddPort(uint16(limit+1), 0)
	qt.Assert(t, qt.ErrorMatches(err, ".*all 1024 entries are in use.*"))
	qt.Assert(t, qt.IsNil(s.AddPort(1, 0)))
	qt.Assert(t, qt.IsNotNil(s.SetSocket(256, 0)))
	qt.Assert(t, qt.IsNotNil(s.SetSocket(-1, 0)))
	qt.Assert(t, qt.IsNotNil(s.SetSocket(0, 0))) // no AF_XDP socket
}

// The bpffs goes with the last NIC that uses it, in any network namespace.
func TestUnmountByLast(t *testing.T) {
	p, dir := newPair(t), bpffsDir(t)
	attachPinned(t, p, dir)
	far := &pair{nic: p.peer}
	p.inFar(t, func() {
		attachPinned(t, far, dir)
		infos, err := ListSteer(t.Context(), dir)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.HasLen(infos, 1))
		qt.Check(t, qt.Equals(infos[0].NIC, p.peer))
	})
	qt.Assert(t, qt.IsNil(DetachSteer(t.Context(), dir, p.nic)))
	qt.Check(t, qt.Equals(p.xdp(t), 0))
	p.inFar(t, func() {
		qt.Check(t, qt.Not(qt.Equals(far.xdp(t), 0)))
		qt.Assert(t, qt.IsNil(DetachSteer(t.Context(), dir, p.peer)))
	})
	assertClean(t, p, dir)
}

// A bpffs of somebody else stays, with what is inside.
func TestForeignBPFFS(t *testing.T) {
	p, dir := newPair(t), bpffsDir(t)
	qt.Assert(t, qt.IsNil(unix.Mount("bpf", dir, "bpf", 0, "")))
	t.Cleanup(func() { unix.Unmount(dir, 0) })
	qt.Assert(t, qt.IsNil(os.Mkdir(filepath.Join(dir, "theirs"), 0o700)))
	before, err := os.ReadDir(dir)
	qt.Assert(t, qt.IsNil(err))

	attachPinned(t, p, dir)
	qt.Assert(t, qt.IsNil(DetachSteer(t.Context(), dir, p.nic)))
	after, err := os.ReadDir(dir)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(len(after), len(before)))
	mounted, err := isBPFFS(dir)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(mounted))
}

// crashAttach leaves what an attach leaves that is killed before its rename.
func crashAttach(t *testing.T, p *pair, dir string) {
	t.Helper()
	n, err := lookupNIC(p.nic)
	qt.Assert(t, qt.IsNil(err))
	b, err := lockBPFFS(t.Context(), dir)
	qt.Assert(t, qt.IsNil(err))
	defer b.lock.release()
	qt.Assert(t, qt.IsNil(b.mount()))
	s, err := attach(n, ModeAuto)
	qt.Assert(t, qt.IsNil(err))
	defer s.Close()
	tmp := filepath.Join(b.base(), tmpPrefix+"crash")
	qt.Assert(t, qt.IsNil(os.MkdirAll(tmp, 0o700)))
	qt.Assert(t, qt.IsNil(s.maps.SteerPorts.Pin(filepath.Join(tmp, pinPorts))))
	qt.Assert(t, qt.IsNil(s.link.Pin(filepath.Join(tmp, pinLink))))
	// The next NIC's attempt did not get as far as that.
	qt.Assert(t, qt.IsNil(os.Mkdir(filepath.Join(b.base(), tmpPrefix+"empty"), 0o700)))
}

func TestCrashedAttach(t *testing.T) {
	for name, next := range map[string]func(*testing.T, *pair, string){
		"attach": func(t *testing.T, p *pair, dir string) {
			attachPinned(t, p, dir)
			qt.Assert(t, qt.IsNil(DetachSteer(t.Context(), dir, p.nic)))
		},
		"detach": func(t *testing.T, p *pair, dir string) {
			qt.Assert(t, qt.ErrorIs(DetachSteer(t.Context(), dir, p.nic), ErrNotAttached))
		},
		"list": func(t *testing.T, p *pair, dir string) {
			infos, err := ListSteer(t.Context(), dir)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.HasLen(infos, 0))
		},
		"open": func(t *testing.T, p *pair, dir string) {
			_, err := OpenSteer(t.Context(), dir, p.nic)
			qt.Assert(t, qt.ErrorIs(err, ErrNotAttached))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, dir := newPair(t), bpffsDir(t)
			crashAttach(t, p, dir)
			qt.Assert(t, qt.Not(qt.Equals(p.xdp(t), 0)))
			next(t, p, dir)
			assertClean(t, p, dir)
		})
	}
}

// A detach that is killed leaves some of the pins, and no program on the NIC.
func TestCrashedDetach(t *testing.T) {
	for _, left := range []string{pinLink, pinPorts} {
		t.Run(left, func(t *testing.T) {
			p, dir := newPair(t), bpffsDir(t)
			for _, next := range []func(){
				func() { attachPinned(t, p, dir) },
				func() { qt.Assert(t, qt.IsNil(DetachSteer(t.Context(), dir, p.nic))) },
			} {
				attachPinned(t, p, dir)
				s, err := OpenSteer(t.Context(), dir, p.nic)
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.IsNil(s.link.Detach()))
				qt.Assert(t, qt.IsNil(s.Close()))
				pins, err := filepath.Glob(filepath.Join(dir, "paste", "*", p.nic, "*"))
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.HasLen(pins, 7))
				for _, pin := range pins {
					if filepath.Base(pin) != left {
						qt.Assert(t, qt.IsNil(os.Remove(pin)))
					}
				}
				_, err = OpenSteer(t.Context(), dir, p.nic)
				qt.Assert(t, qt.ErrorIs(err, ErrNotAttached))
				infos, err := ListSteer(t.Context(), dir)
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.DeepEquals(infos, []SteerInfo{{NIC: p.nic, Pinned: true, Stale: true}}))
				next()
			}
			assertClean(t, p, dir)
		})
	}
}

func TestNICGone(t *testing.T) {
	p, dir := newPair(t), bpffsDir(t)
	stale := []SteerInfo{{NIC: p.nic, Pinned: true, Stale: true}}
	remove := func() {
		l, err := netlink.LinkByName(p.nic)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(netlink.LinkDel(l)))
	}
	first := attachPinned(t, p, dir)
	remove()
	infos, err := ListSteer(t.Context(), dir)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(infos, stale))
	_, err = OpenSteer(t.Context(), dir, p.nic)
	qt.Assert(t, qt.ErrorIs(err, ErrNoSuchNIC))

	// Another NIC of the same name is not attached; attaching replaces the pins.
	la := netlink.NewLinkAttrs()
	la.Name = p.nic
	qt.Assert(t, qt.IsNil(netlink.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: p.peer})))
	infos, err = ListSteer(t.Context(), dir)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(infos, stale))
	_, err = OpenSteer(t.Context(), dir, p.nic)
	qt.Assert(t, qt.ErrorIs(err, ErrNotAttached))
	second := attachPinned(t, p, dir)
	qt.Check(t, qt.Not(qt.Equals(first.LinkID, second.LinkID)))
	assertProgGone(t, first.ProgID)

	remove()
	qt.Assert(t, qt.IsNil(DetachSteer(t.Context(), dir, p.nic)))
	assertProgGone(t, second.ProgID)
	qt.Assert(t, qt.ErrorIs(DetachSteer(t.Context(), dir, p.nic), ErrNoSuchNIC))
}

// A NIC's address may change while it is attached.
func TestConfigureRefreshesAddress(t *testing.T) {
	p, dir := newPair(t), bpffsDir(t)
	attachPinned(t, p, dir)
	l, err := netlink.LinkByName(p.nic)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(netlink.LinkSetHardwareAddr(l, ourMAC)))
	s, err := OpenSteer(t.Context(), dir, p.nic)
	qt.Assert(t, qt.IsNil(err))
	defer s.Close()
	qt.Assert(t, qt.IsNil(s.Configure(FrameRoom(2048), 1)))
	var cfg steerNicConfig
	qt.Assert(t, qt.IsNil(s.maps.SteerConfig.Lookup(uint32(0), &cfg)))
	qt.Assert(t, qt.DeepEquals(cfg.Mac[:], []byte(ourMAC)))
	qt.Assert(t, qt.IsNil(DetachSteer(t.Context(), dir, p.nic)))
}

// Pins in a mount namespace of its own would be gone before anybody used them.
func TestPinInOtherMountNS(t *testing.T) {
	p, dir := newPair(t), bpffsDir(t)
	out, err := helper(t, fmt.Sprintf("attach %s %s", p.nic, dir), unix.CLONE_NEWNS)
	qt.Assert(t, qt.IsNotNil(err))
	qt.Check(t, qt.StringContains(out, ErrNoBPFFS.Error()))
	qt.Check(t, qt.StringContains(out, "nsenter"))
	assertClean(t, p, dir)
}
