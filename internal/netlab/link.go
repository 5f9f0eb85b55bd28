package netlab

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func up(h *netlink.Handle, dev string) error {
	link, err := h.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("find %s: %w", dev, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring %s up: %w", dev, err)
	}
	return nil
}

// addAddr gives dev an address, and the route to its subnet with cc as the
// congestion control.
func addAddr(h *netlink.Handle, dev string, p netip.Prefix, cc string) error {
	link, err := h.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("find %s: %w", dev, err)
	}
	a, err := netlink.ParseAddr(p.String())
	if err != nil {
		return fmt.Errorf("address %s: %w", p, err)
	}
	a.Flags |= unix.IFA_F_NOPREFIXROUTE
	if p.Addr().Is6() {
		a.Flags |= unix.IFA_F_NODAD
	}
	if err := h.AddrAdd(link, a); err != nil {
		return fmt.Errorf("add %s to %s: %w", p, dev, err)
	}
	r := &netlink.Route{
		LinkIndex: link.Attrs().Index,
		Dst:       &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: a.Mask},
		Scope:     netlink.SCOPE_LINK,
		Congctl:   cc,
	}
	if p.Addr().Is4() {
		r.Src = a.IP
	}
	if err := h.RouteAdd(r); err != nil {
		return fmt.Errorf("add route to %s over %s with congestion control %s: %w", p.Masked(), dev, cc, err)
	}
	return nil
}

// feature is a request of ethtool that switches something on or off.
type feature struct {
	what  string
	cmd   uint32
	value uint32
}

// offloads sets what the lab wants different from a veth's defaults.
func (l *Lab) offloads() error {
	return l.eachEnd(func(dev string, _ int) error {
		for _, f := range l.features(dev == l.ClientDev) {
			if err := ethtoolSet(dev, f.cmd, f.value); err != nil {
				return fmt.Errorf("set %s of %s to %d: %w", f.what, dev, f.value, err)
			}
		}
		return nil
	})
}

func (l *Lab) features(client bool) (all []feature) {
	gro, noTSO := feature{"GRO", unix.ETHTOOL_SGRO, 1}, feature{"TSO", unix.ETHTOOL_STSO, 0}
	noChecksum := feature{"checksum offload", unix.ETHTOOL_STXCSUM, 0}
	if l.cfg.Pin != nil && !l.cfg.Pin.RPS {
		// Without XDP, a veth end receives through NAPI only with GRO on, and
		// then only what a sender without TSO sends (veth_xmit in
		// drivers/net/veth.c). Receiving shall be the same with and without.
		all = append(all, gro, noTSO)
	}
	if l.cfg.Wire && client {
		all = append(all, noTSO, feature{"GSO", unix.ETHTOOL_SGSO, 0})
	}
	if l.cfg.Wire && !client {
		all = append(all, gro)
	}
	if l.cfg.NoTxChecksum || l.cfg.Wire && client {
		all = append(all, noChecksum)
	}
	return all
}

// pin makes NAPI threaded on both ends and binds the threads, or steers what
// comes after NAPI.
func (l *Lab) pin() error {
	if l.cfg.Pin == nil {
		return nil
	}
	return l.eachEnd(func(dev string, cpu int) error {
		if l.cfg.Pin.RPS {
			for q := range l.cfg.Queues {
				err := setAttribute(dev, fmt.Sprintf("queues/rx-%d/rps_cpus", q), strconv.FormatUint(1<<cpu, 16))
				if err != nil {
					return err
				}
			}
			return nil
		}
		if err := setAttribute(dev, "threaded", "1"); err != nil {
			return err
		}
		return pinNAPI(dev, cpu)
	})
}

func (l *Lab) eachEnd(fn func(dev string, cpu int) error) error {
	var pin Pin
	if l.cfg.Pin != nil {
		pin = *l.cfg.Pin
	}
	if err := l.Server.Do(func() error { return fn(l.ServerDev, pin.ServerCPU) }); err != nil {
		return err
	}
	return l.Client.Do(func() error { return fn(l.ClientDev, pin.ClientCPU) })
}

// TagFrames has a device of the calling thread's namespace send the tag of a VLAN in
// the frame, not beside it: a veth hands it over beside it otherwise, where XDP at
// the other end does not see it.
func TagFrames(dev string) error {
	const rxVLAN = 1 << 8 // ETH_FLAG_RXVLAN; ETH_FLAG_TXVLAN, beside it, goes (include/uapi/linux/ethtool.h)
	return ethtoolSet(dev, unix.ETHTOOL_SFLAGS, rxVLAN)
}

// ethtoolSet is the SIOCETHTOOL request with a struct ethtool_value
// (include/uapi/linux/ethtool.h), in the calling thread's namespace.
func ethtoolSet(dev string, cmd, value uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	var pin runtime.Pinner
	defer pin.Unpin()
	val := &struct{ cmd, data uint32 }{cmd, value}
	pin.Pin(val)
	// struct ifreq: 16 bytes of name, then a 24-byte union.
	req := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(val)}
	copy(req.name[:unix.IFNAMSIZ-1], dev)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return os.NewSyscallError("ioctl SIOCETHTOOL", errno)
	}
	return nil
}

// setAttribute writes an attribute of a device. The sysfs mounted on /sys shows
// the devices of the namespace it was mounted in, so a new detached instance is
// used: it belongs to the calling thread's namespace.
func setAttribute(dev, name, value string) error {
	fs, err := unix.Fsopen("sysfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open sysfs: %w", needRoot(err))
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("create sysfs instance: %w", needRoot(err))
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("mount sysfs instance: %w", needRoot(err))
	}
	defer unix.Close(root)
	fd, err := unix.Openat(root, "class/net/"+dev+"/"+name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open attribute %s of %s: %w", name, dev, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return fmt.Errorf("set %s of %s to %s: %w", name, dev, value, err)
	}
	return nil
}

// pinNAPI binds the kernel threads named napi/<dev>-<id> to a CPU.
func pinNAPI(dev string, cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	pids, err := napiThreads(dev)
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return fmt.Errorf("pin NAPI of %s: no kernel thread of that name", dev)
	}
	for _, pid := range pids {
		if err := unix.SchedSetaffinity(pid, &set); err != nil {
			return fmt.Errorf("pin NAPI thread %d of %s to CPU %d: %w", pid, dev, cpu, err)
		}
	}
	return nil
}

func napiThreads(dev string) ([]int, error) {
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, c := range comms {
		b, err := os.ReadFile(c)
		if err != nil || !strings.HasPrefix(string(b), "napi/"+dev+"-") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(c))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
