package bpf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Names inside a NIC's directory.
const (
	pinLink   = "link"
	pinConfig = "config"
	pinPorts  = "ports"
	pinConns  = "conns"
	pinXsks   = "xsks"
	pinStats  = "stats"
	pinFlows  = "flows"
)

// tmpPrefix cannot begin the name of a network namespace's directory, which is
// a number.
const tmpPrefix = "tmp-"

// OpenSteer opens the steering that is pinned for a NIC and changes nothing in it.
// The error wraps ErrNotAttached if nothing is, or if the
// NIC it was pinned for is gone.
func OpenSteer(ctx context.Context, bpffs, nic string) (_ *Steer, err error) {
	n, err := lookupNIC(nic)
	if err != nil {
		return nil, err
	}
	b, err := lockBPFFS(ctx, bpffs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notAttached(n.name)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := b.close(); err == nil {
			err = cerr
		}
	}()
	if b.mounted {
		if err := b.sweep(); err != nil {
			return nil, err
		}
	}
	return b.open(n)
}

// DetachSteer removes the program from the NIC with everything that is pinned
// for it, also while an application has it open, and also when the NIC is gone
// already. The error wraps ErrNotAttached if there was nothing to remove.
func DetachSteer(ctx context.Context, bpffs, nic string) (err error) {
	if !validNICName(nic) {
		return fmt.Errorf("interface %q: %w: that cannot be an interface's name", nic, ErrNoSuchNIC)
	}
	b, err := lockBPFFS(ctx, bpffs)
	if errors.Is(err, fs.ErrNotExist) {
		return notAttached(nic)
	}
	if err != nil {
		return err
	}
	defer func() {
		if cerr := b.close(); err == nil {
			err = cerr
		}
	}()
	if !b.mounted {
		return notAttachedHere(nic)
	}
	if err := b.sweep(); err != nil {
		return err
	}
	dir, err := b.nicDir(nic)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return notAttachedHere(nic)
	} else if err != nil {
		return pinError("detach "+nic, err)
	}
	return removePins(dir)
}

// ListSteer returns what is pinned for the NICs of the calling thread's
// network namespace, in the order of their names, stale pins included.
func ListSteer(ctx context.Context, bpffs string) (_ []SteerInfo, err error) {
	b, err := lockBPFFS(ctx, bpffs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := b.close(); err == nil {
			err = cerr
		}
	}()
	if !b.mounted {
		return nil, nil
	}
	if err := b.sweep(); err != nil {
		return nil, err
	}
	dir, err := b.nsDir()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, pinError("list attached interfaces", err)
	}
	var infos []SteerInfo
	for _, e := range entries {
		s, err := openPins(filepath.Join(dir, e.Name()), e.Name())
		if errors.Is(err, ErrNotAttached) || errors.Is(err, ErrNoSuchNIC) {
			infos = append(infos, SteerInfo{NIC: e.Name(), Pinned: true, Stale: true})
			continue
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, s.info)
		s.Close()
	}
	return infos, nil
}

func notAttached(nic string) error {
	return fmt.Errorf("interface %s: %w", nic, ErrNotAttached)
}

// notAttachedHere is notAttached for one who wants to detach.
func notAttachedHere(nic string) error {
	n, err := lookupNIC(nic)
	if err != nil {
		return err
	}
	if n.xdpProg != 0 {
		return fmt.Errorf("interface %s: %w, or not pinned: %s", nic, ErrNotAttached, n.holder(n.xdpProg))
	}
	return fmt.Errorf("interface %s: %w: there is nothing to detach", nic, ErrNotAttached)
}

// pinError adds the remedy where a bpffs or a pin may not be touched.
func pinError(what string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return privilegeError(what, []string{"CAP_SYS_ADMIN", "CAP_BPF"})
	}
	return fmt.Errorf("%s: %w", what, err)
}

// nsDir is the directory of the calling thread's network namespace.
func (b *bpffs) nsDir() (string, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return "", fmt.Errorf("stat network namespace: %w", err)
	}
	return filepath.Join(b.base(), strconv.FormatUint(st.Ino, 10)), nil
}

func (b *bpffs) nicDir(nic string) (string, error) {
	dir, err := b.nsDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, nic), nil
}

// open opens what is pinned for n.
func (b *bpffs) open(n *nic) (*Steer, error) {
	if !b.mounted {
		return nil, notAttached(n.name)
	}
	dir, err := b.nicDir(n.name)
	if err != nil {
		return nil, err
	}
	s, err := openPins(dir, n.name)
	if err == nil && s.info.Replaced != "" {
		err = errors.Join(s.replaced(), s.Close())
		s = nil
	}
	return s, err
}

// openPins opens the pins in dir and describes them as those of nic.
func openPins(dir, nic string) (_ *Steer, err error) {
	spec, err := loadSteer()
	if err != nil {
		return nil, err
	}
	s := &Steer{info: SteerInfo{NIC: nic, Pinned: true}}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	s.link, err = link.LoadPinnedLink(filepath.Join(dir, pinLink), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notAttached(nic)
	}
	if err != nil {
		return nil, pinError("interface "+nic+": open pinned link", err)
	}
	// First, for a crash while pins are removed may have left the detached link
	// without its maps.
	if err := s.describe(nic); err != nil {
		return nil, err
	}
	for _, p := range s.pins() {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, p.pin), nil)
		if err == nil {
			*p.m = m
			err = spec.Maps[p.spec].Compatible(m)
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ebpf.ErrMapIncompatible) {
			return nil, fmt.Errorf("interface %s: %w; detach it and attach it again: %w", nic, ErrOtherVersion, err)
		}
		if err != nil {
			return nil, pinError("interface "+nic+": open pinned map "+p.pin, err)
		}
	}
	return s, nil
}

type mapPin struct {
	pin, spec string
	m         **ebpf.Map
}

func (s *Steer) pins() []mapPin {
	return []mapPin{
		{pinConfig, steerMapSteerConfig, &s.maps.SteerConfig},
		{pinPorts, steerMapSteerPorts, &s.maps.SteerPorts},
		{pinConns, steerMapSteerConns, &s.maps.SteerConns},
		{pinXsks, steerMapSteerXsks, &s.maps.SteerXsks},
		{pinStats, steerMapSteerStats, &s.maps.SteerStats},
		{pinFlows, steerMapSteerFlows, &s.maps.SteerFlows},
	}
}

// pin makes s outlive the process. It changes s only if it succeeds.
func (b *bpffs) pin(s *Steer) (err error) {
	dir, err := b.nicDir(s.info.NIC)
	if err != nil {
		return err
	}
	what := "pin the steering of " + s.info.NIC
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return pinError(what, err)
	}
	tmp, err := os.MkdirTemp(b.base(), tmpPrefix)
	if err != nil {
		return pinError(what, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removePins(tmp))
		}
	}()
	for _, p := range s.pins() {
		if err := (*p.m).Pin(filepath.Join(tmp, p.pin)); err != nil {
			return pinError(what, err)
		}
	}
	if err := s.link.Pin(filepath.Join(tmp, pinLink)); err != nil {
		return pinError(what, err)
	}
	// A directory that is there is stale: open found no NIC for it.
	if err := removePins(dir); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return pinError(what, err)
	}
	s.info.Pinned = true
	return nil
}

// sweep removes what crashed calls left. The lock says that nobody is building
// any of it now.
func (b *bpffs) sweep() error {
	entries, err := os.ReadDir(b.base())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return pinError("read "+b.base(), err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tmpPrefix) {
			if err := removePins(filepath.Join(b.base(), e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// removePins detaches the link in dir, if there is one, and removes dir. It is
// no error if dir does not exist.
func removePins(dir string) error {
	// Unlinking is not enough while another process has the link open.
	l, err := link.LoadPinnedLink(filepath.Join(dir, pinLink), nil)
	if err == nil {
		err = l.Detach()
		l.Close()
		// A link whose interface is gone has nothing to detach from.
		if err != nil && !errors.Is(err, unix.ENOLINK) && !errors.Is(err, unix.EINVAL) {
			return pinError("detach "+dir, err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return pinError("open "+filepath.Join(dir, pinLink), err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return pinError("remove "+dir, err)
	}
	return nil
}
