package bpf

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"golang.org/x/sys/unix"
)

func TestUnknownNIC(t *testing.T) {
	netlabtest.Enter(t, netlabtest.NewNetns(t))
	dir := bpffsDir(t)
	for _, nic := range []string{"at-none", "", "..", "a/b", "longer-than-15-bytes"} {
		_, err := AttachSteer(t.Context(), SteerOptions{NIC: nic, Pin: true, BPFFS: dir})
		qt.Check(t, qt.ErrorIs(err, ErrNoSuchNIC))
		_, err = OpenSteer(t.Context(), dir, nic)
		qt.Check(t, qt.ErrorIs(err, ErrNoSuchNIC))
		err = DetachSteer(t.Context(), dir, nic)
		qt.Check(t, qt.ErrorIs(err, ErrNoSuchNIC))
	}
	_, err := AttachSteer(t.Context(), SteerOptions{NIC: "lo"})
	qt.Check(t, qt.IsNotNil(err))
}

func mustNIC(t *testing.T, name string) *nic {
	t.Helper()
	n, err := lookupNIC(name)
	qt.Assert(t, qt.IsNil(err))
	return n
}

func TestOtherProgram(t *testing.T) {
	p, dir := newPair(t), bpffsDir(t)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "somebody", Type: ebpf.XDP, License: "BSD",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
	})
	qt.Assert(t, qt.IsNil(err))
	defer prog.Close()
	for _, theirs := range []XDPMode{ModeNative, ModeGeneric} {
		l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: mustNIC(t, p.nic).ifindex, Flags: theirs.flags()})
		qt.Assert(t, qt.IsNil(err))
		for _, o := range []SteerOptions{
			{NIC: p.nic},
			{NIC: p.nic, Mode: ModeNative},
			{NIC: p.nic, Mode: ModeGeneric, Pin: true, BPFFS: dir},
		} {
			_, err = AttachSteer(t.Context(), o)
			qt.Assert(t, qt.ErrorIs(err, ErrAttachedByOther))
			qt.Check(t, qt.StringContains(err.Error(), fmt.Sprintf("program %d (somebody)", p.xdp(t))))
			// The kernel's refusal becomes the same sentence.
			_, kerr := attachXDP(mustNIC(t, p.nic), prog, ModeNative)
			qt.Check(t, qt.ErrorMatches(kerr, regexp.QuoteMeta(err.Error())))
		}
		qt.Assert(t, qt.ErrorIs(DetachSteer(t.Context(), dir, p.nic), ErrNotAttached))
		qt.Assert(t, qt.IsNil(l.Close()))
	}
	assertClean(t, p, dir)
}

func TestMTU(t *testing.T) {
	qt.Check(t, qt.Equals(MaxMTU(2048), 1774))
	qt.Check(t, qt.Equals(MaxMTU(100), 0))

	p, dir := newPair(t), bpffsDir(t)
	try := func(mtu int, mode XDPMode) error {
		p.setMTU(t, mtu)
		s, err := AttachSteer(t.Context(), SteerOptions{NIC: p.nic, Mode: mode, Pin: true, BPFFS: dir})
		if err != nil {
			assertClean(t, p, dir)
			return err
		}
		qt.Check(t, qt.Equals(s.Info().MTU, mtu))
		qt.Assert(t, qt.IsNil(s.Close()))
		qt.Assert(t, qt.IsNil(DetachSteer(t.Context(), dir, p.nic)))
		return nil
	}
	qt.Check(t, qt.IsNil(try(maxNativeMTU(), ModeNative)))
	for _, mode := range []XDPMode{ModeAuto, ModeNative} {
		err := try(maxNativeMTU()+1, mode)
		qt.Check(t, qt.ErrorIs(err, ErrMTU))
		qt.Check(t, qt.StringContains(err.Error(), fmt.Sprint(maxNativeMTU())))
		qt.Check(t, qt.StringContains(err.Error(), "ip link set"))
	}
	limit := MaxMTU(os.Getpagesize())
	qt.Check(t, qt.IsNil(try(limit, ModeGeneric)))
	err := try(limit+1, ModeGeneric)
	qt.Check(t, qt.ErrorIs(err, ErrMTU))
	qt.Check(t, qt.StringContains(err.Error(), fmt.Sprint(limit)))
}

// withoutCaps runs f on this thread with no effective capability.
func withoutCaps(t *testing.T, f func()) {
	t.Helper()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	qt.Assert(t, qt.IsNil(unix.Capget(&hdr, &data[0])))
	none := data
	none[0].Effective, none[1].Effective = 0, 0
	qt.Assert(t, qt.IsNil(unix.Capset(&hdr, &none[0])))
	defer func() { qt.Assert(t, qt.IsNil(unix.Capset(&hdr, &data[0]))) }()
	f()
}

// asNobody runs f on this thread as the user nobody. The raw system call
// changes this thread alone, and becoming root again restores its capabilities.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	seteuid := func(uid uintptr) {
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uid, ^uintptr(0))
		qt.Assert(t, qt.Equals(errno, 0))
	}
	seteuid(65534)
	defer seteuid(0)
	f()
}

func TestNoPrivilege(t *testing.T) {
	p, dir := newPair(t), bpffsDir(t)
	withoutCaps(t, func() {
		_, err := AttachSteer(t.Context(), SteerOptions{NIC: p.nic, Pin: true, BPFFS: dir})
		qt.Check(t, qt.ErrorIs(err, ErrNoPrivilege))
		qt.Check(t, qt.StringContains(err.Error(), "CAP_NET_ADMIN, CAP_BPF"))
		err = CheckPrivilege()
		qt.Check(t, qt.ErrorIs(err, ErrNoPrivilege))
		qt.Check(t, qt.StringContains(err.Error(), "CAP_NET_RAW"))
		for _, f := range Features() {
			qt.Check(t, qt.IsTrue(f.Err == nil || errors.Is(f.Err, ErrNoPrivilege)), qt.Commentf("%s: %v", f.Name, f.Err))
		}
	})
	qt.Assert(t, qt.IsNil(CheckPrivilege()))

	attachPinned(t, p, dir)
	asNobody(t, func() {
		_, err := ListSteer(t.Context(), dir)
		qt.Check(t, qt.ErrorIs(err, ErrNoPrivilege))
		_, err = OpenSteer(t.Context(), dir, p.nic)
		qt.Check(t, qt.ErrorIs(err, ErrNoPrivilege))
		err = DetachSteer(t.Context(), dir, p.nic)
		qt.Check(t, qt.ErrorIs(err, ErrNoPrivilege))
	})
	qt.Assert(t, qt.IsNil(DetachSteer(t.Context(), dir, p.nic)))
	assertClean(t, p, dir)
}

func TestKernel(t *testing.T) {
	qt.Assert(t, qt.IsNil(CheckKernel()))
	for release, missing := range map[string][]string{
		"5.15.0-101-generic": {"bpf_cast_to_kern_ctx", "TCX", "5.15.0-101-generic"},
		"6.1.0":              {"bpf_cast_to_kern_ctx", "TCX"},
		"6.5.13":             {"TCX"},
		"plan9":              {"plan9"},
	} {
		err := checkRelease(release)
		qt.Assert(t, qt.ErrorIs(err, ErrKernelTooOld))
		for _, word := range append(missing, "6.6") {
			qt.Check(t, qt.StringContains(err.Error(), word))
		}
	}
	for _, release := range []string{"6.6", "6.6.1-rc3", "6.18.44-fc", "7.0.0", "10.1"} {
		qt.Check(t, qt.IsNil(checkRelease(release)))
	}
}
