package bpf

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// What the datapath needs that is not in every kernel, newest last.
var versionedFeatures = []struct {
	major, minor int
	name         string
}{
	{6, 2, "bpf_cast_to_kern_ctx"},
	{6, 6, "TCX"},
}

// CheckKernel returns nil when the running kernel has everything that the
// datapath needs: Linux 6.6 or newer with BPF, BTF, AF_XDP and sockmaps. It
// returns an error that wraps ErrKernelTooOld and names the missing feature
// otherwise, or one that wraps ErrNoPrivilege when the process may not find
// out. The answer does not change while a kernel runs, so success is
// remembered.
func CheckKernel() error {
	kernelOnce.Lock()
	defer kernelOnce.Unlock()
	if kernelOnce.ok {
		return nil
	}
	if err := CheckRelease(); err != nil {
		return err
	}
	for _, f := range Features() {
		if f.Err != nil {
			return f.Err
		}
	}
	kernelOnce.ok = true
	return nil
}

var kernelOnce struct {
	sync.Mutex
	ok bool
}

// KernelRelease returns what `uname -r` prints.
func KernelRelease() (string, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return "", fmt.Errorf("uname: %w", err)
	}
	return unix.ByteSliceToString(uts.Release[:]), nil
}

// CheckRelease is the part of CheckKernel that needs no privilege: the running
// kernel's version.
func CheckRelease() error {
	release, err := KernelRelease()
	if err != nil {
		return err
	}
	return checkRelease(release)
}

func checkRelease(release string) error {
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 {
		return fmt.Errorf("cannot read the kernel version %q: %w: Linux 6.6 or newer is needed", release, ErrKernelTooOld)
	}
	var missing []string
	for _, f := range versionedFeatures {
		if major < f.major || major == f.major && minor < f.minor {
			missing = append(missing, fmt.Sprintf("%s (Linux %d.%d)", f.name, f.major, f.minor))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("kernel %s: %w: %s; boot Linux 6.6 or newer", release, ErrKernelTooOld, strings.Join(missing, " and "))
	}
	return nil
}

// Feature is something that the datapath needs of the kernel.
type Feature struct {
	Name string // with the kernel option that brings it
	Err  error  // nil: it is there. It wraps ErrKernelTooOld, or ErrNoPrivilege where the process may not find out
}

// Features looks for everything that a new kernel may lack because of its
// configuration.
func Features() []Feature {
	release, err := KernelRelease()
	var all []Feature
	for _, p := range featureProbes {
		f := Feature{Name: p.name, Err: err}
		if err == nil {
			f.Err = featureError(release, p.name, p.probe())
		}
		all = append(all, f)
	}
	return all
}

var featureProbes = []struct {
	name  string
	probe func() error
}{
	{"XDP (CONFIG_BPF_SYSCALL)", func() error { return features.HaveProgramType(ebpf.XDP) }},
	{"AF_XDP socket maps (CONFIG_XDP_SOCKETS)", func() error { return features.HaveMapType(ebpf.XSKMap) }},
	{"sockmap stream verdicts (CONFIG_BPF_STREAM_PARSER)", func() error { return features.HaveProgramType(ebpf.SkSKB) }},
	{"bpf_cast_to_kern_ctx (CONFIG_DEBUG_INFO_BTF)", haveCastToKernCtx},
	{"TCX (CONFIG_NET_XGRESS)", haveTCX},
}

// featureError puts what a probe found into words.
func featureError(release, name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return privilegeError("examine the kernel's BPF features", capNames)
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("kernel %s: %w: %s; boot a kernel, 6.6 or newer, that is built with it", release, ErrKernelTooOld, name)
	}
	return fmt.Errorf("examine the kernel for %s: %w", name, err)
}

func haveCastToKernCtx() error {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return fmt.Errorf("%w: %w", ebpf.ErrNotSupported, err)
	}
	var f *btf.Func
	if err := spec.TypeByName("bpf_cast_to_kern_ctx", &f); err != nil {
		return fmt.Errorf("%w: %w", ebpf.ErrNotSupported, err)
	}
	return nil
}

// haveTCX attaches to an interface that cannot exist: a kernel with TCX says
// that there is no such device, an older one does not know the attach type.
func haveTCX() error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.SchedCLS,
		License:      "BSD",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return err
	}
	defer prog.Close()
	l, err := link.AttachTCX(link.TCXOptions{Interface: 1<<31 - 1, Program: prog, Attach: ebpf.AttachTCXIngress})
	switch {
	case err == nil:
		return l.Close()
	case errors.Is(err, unix.ENODEV):
		return nil
	case errors.Is(err, unix.EINVAL):
		return ebpf.ErrNotSupported
	}
	return err
}

// Capabilities that the datapath needs (include/uapi/linux/capability.h).
var (
	capNames  = []string{"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON"}
	capValues = map[string]uint{
		"CAP_NET_ADMIN": unix.CAP_NET_ADMIN,
		"CAP_NET_RAW":   unix.CAP_NET_RAW,
		"CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN,
		"CAP_PERFMON":   unix.CAP_PERFMON,
		"CAP_BPF":       unix.CAP_BPF,
	}
)

// CheckPrivilege returns nil when the calling thread has the capabilities that
// a port needs, and an error that wraps ErrNoPrivilege and names the missing
// ones otherwise.
func CheckPrivilege() error { return requireCaps("open a port", capNames...) }

func requireCaps(what string, names ...string) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	has := func(name string) bool {
		v := capValues[name]
		return data[v/32].Effective&(1<<(v%32)) != 0
	}
	var missing []string
	for _, name := range names {
		// CAP_SYS_ADMIN includes what was split off from it.
		split := name == "CAP_BPF" || name == "CAP_PERFMON"
		if !has(name) && !(split && has("CAP_SYS_ADMIN")) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return privilegeError(what, missing)
	}
	return nil
}

func privilegeError(what string, missing []string) error {
	return fmt.Errorf("%w to %s: %s missing; run as root", ErrNoPrivilege, what, strings.Join(missing, ", "))
}
