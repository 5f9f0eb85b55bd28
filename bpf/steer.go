package bpf

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// SteerOptions say what AttachSteer attaches, and for how long.
type SteerOptions struct {
	NIC  string  // interface, in the calling thread's network namespace
	Mode XDPMode // ModeAuto unless set

	// Pin makes the program outlive the process: it stays until DetachSteer.
	// Otherwise it lives as long as the Steer.
	Pin bool
	// BPFFS is the mount point of the bpffs to pin in, "" for DefaultBPFFS.
	// AttachSteer mounts one if there is none; DetachSteer of the last NIC
	// unmounts it again.
	BPFFS string
}

// SteerInfo describes an attached NIC.
type SteerInfo struct {
	NIC     string  `json:"nic"`
	Ifindex int     `json:"ifindex"`
	Mode    XDPMode `json:"mode"` // the mode obtained: ModeNative or ModeGeneric
	// Fallback says why ModeAuto ended in ModeGeneric; "" otherwise, and for a
	// Steer that was opened and not attached.
	Fallback string `json:"fallback,omitempty"`
	Pinned   bool   `json:"pinned"`
	// Stale means that the NIC is gone and only its pins are left: the fields
	// above and below say nothing but the name.
	Stale bool `json:"stale,omitempty"`
	// Replaced names the program that somebody has put into the link instead of
	// ours; "" while ours is there.
	Replaced string `json:"replaced,omitempty"`
	Queues   int    `json:"queues"` // RX queues in use
	MTU      int    `json:"mtu"`    // bytes
	ProgID   uint32 `json:"prog_id"`
	LinkID   uint32 `json:"link_id"`
}

// Steer is the XDP program on one NIC with its maps. Its methods may be called
// from several goroutines at once.
type Steer struct {
	link  link.Link
	maps  steerMaps
	info  SteerInfo
	order []byte // mapped memory, once Order was called
	vlans atomic.Pointer[vlanTable]

	clients clientPorts

	closeOnce sync.Once
	closeErr  error
}

// AttachSteer attaches the steering program to a NIC. Until Configure has said
// what fits a buffer, and a port and a connection are added, every packet passes.
// ctx bounds the wait for others that pin or unpin.
//
// With Pin it is idempotent: a NIC that is pinned already, in a mode that
// agrees with Mode, is opened. What a crashed call left is removed first. The
// error wraps ErrNoSuchNIC, ErrNoPrivilege, ErrKernelTooOld, ErrMTU,
// ErrAttachedByOther, ErrOtherMode, ErrNoNativeXDP or ErrNoBPFFS where one of
// these is the cause.
func AttachSteer(ctx context.Context, o SteerOptions) (_ *Steer, err error) {
	n, err := lookupNIC(o.NIC)
	if err != nil {
		return nil, err
	}
	if err := requireCaps("attach "+n.name, "CAP_NET_ADMIN", "CAP_BPF"); err != nil {
		return nil, err
	}
	if err := CheckKernel(); err != nil {
		return nil, err
	}
	if !o.Pin {
		return attach(n, o.Mode)
	}

	b, err := lockBPFFS(ctx, o.BPFFS)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := b.close(); err == nil {
			err = cerr
		}
	}()
	if err := b.mount(); err != nil {
		return nil, err
	}
	if err := b.sweep(); err != nil {
		return nil, err
	}
	switch s, err := b.open(n); {
	case err == nil && (o.Mode == ModeAuto || o.Mode == s.info.Mode):
		return s, nil
	case err == nil:
		s.Close()
		return nil, fmt.Errorf("interface %s: %w: it is in %s mode; detach it before it is attached in %s mode",
			n.name, ErrOtherMode, s.info.Mode, o.Mode)
	case !errors.Is(err, ErrNotAttached):
		return nil, err
	}
	// Sweeping may have removed a link that the first look still saw.
	if n, err = lookupNIC(o.NIC); err != nil {
		return nil, err
	}
	s, err := attach(n, o.Mode)
	if err != nil {
		return nil, err
	}
	if err := b.pin(s); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// attach loads the program and links it to n.
func attach(n *nic, mode XDPMode) (*Steer, error) {
	if limit := MaxMTU(unix.Getpagesize()); n.mtu > limit {
		return nil, fmt.Errorf("interface %s: %w: it is %d, and at most %d fits a packet buffer of one page; run `ip link set %s mtu %d`",
			n.name, ErrMTU, n.mtu, limit, n.name, min(limit, 1500))
	}
	if n.xdpProg != 0 {
		return nil, n.attachedByOther(n.xdpProg)
	}

	var objs steerObjects
	if err := loadSteerObjects(&objs, nil); err != nil {
		if errors.Is(err, unix.EPERM) {
			return nil, privilegeError("load the steering program", []string{"CAP_BPF", "CAP_NET_ADMIN"})
		}
		return nil, fmt.Errorf("load the steering program: %w", err)
	}
	defer objs.PasteSteer.Close() // the link keeps it

	s := &Steer{maps: objs.steerMaps}
	err := s.configure(n, 0, 1)
	if err == nil {
		err = s.attachLink(n, objs.PasteSteer, mode)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// attachLink links prog to n in the wanted mode and notes what came of it.
func (s *Steer) attachLink(n *nic, prog *ebpf.Program, mode XDPMode) (err error) {
	if s.link, s.info.Fallback, err = linkXDP(n, prog, mode); err != nil {
		return err
	}
	return s.describe(n.name)
}

// linkXDP links prog to n in the wanted mode. fallback says why ModeAuto ended in
// generic mode.
func linkXDP(n *nic, prog *ebpf.Program, mode XDPMode) (l link.Link, fallback string, err error) {
	switch mode {
	case ModeNative, ModeGeneric:
		l, err = attachXDP(n, prog, mode)
	case ModeAuto:
		l, err = attachXDP(n, prog, ModeNative)
		if errors.Is(err, ErrNoNativeXDP) {
			fallback = err.Error()
			l, err = attachXDP(n, prog, ModeGeneric)
		}
	default:
		err = fmt.Errorf("interface %s: unknown XDP mode %d", n.name, mode)
	}
	return l, fallback, err
}

// describe fills s.info from what the kernel says about the link and the NIC.
// It returns an error that wraps ErrNotAttached if the link is not on the NIC.
func (s *Steer) describe(name string) error {
	info, err := s.link.Info()
	if err != nil {
		return fmt.Errorf("interface %s: XDP link: %w", name, err)
	}
	n, err := lookupNIC(name)
	if err != nil {
		return err
	}
	// The link of a NIC that is gone has the index 0; one that was moved to
	// another network namespace, or renamed, is not the one of that name here.
	if xdp := info.XDP(); xdp == nil || int(xdp.Ifindex) != n.ifindex {
		return fmt.Errorf("interface %s: %w: its steering belonged to an interface that is gone", name, ErrNotAttached)
	}
	s.info.NIC = n.name
	s.info.Ifindex = n.ifindex
	s.info.Mode = n.xdpMode
	s.info.Queues = n.rxQueues()
	s.info.MTU = n.mtu
	s.info.ProgID = uint32(info.Program)
	s.info.LinkID = uint32(info.ID)
	s.info.Replaced = ""
	if name := programName(uint32(info.Program)); name != steerProgPasteSteer {
		s.info.Replaced = fmt.Sprintf("XDP program %d (%s)", info.Program, name)
	}
	return nil
}

// replaced is the error for a link that has another program than ours.
func (s *Steer) replaced() error {
	return fmt.Errorf("interface %s: %w: %s was put into its link; detach the interface and attach it again", s.info.NIC, ErrReplaced, s.info.Replaced)
}

// programName returns "?" for a program that is gone or cannot be looked at.
func programName(id uint32) string {
	prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return "?"
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil {
		return "?"
	}
	return info.Name
}

// attachXDP links prog to n and turns the kernel's numbers into sentences.
func attachXDP(n *nic, prog *ebpf.Program, mode XDPMode) (link.Link, error) {
	l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: n.ifindex, Flags: mode.flags()})
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		id := uint32(0)
		if now, err := lookupNIC(n.name); err == nil {
			id = now.xdpProg
		}
		return nil, n.attachedByOther(id)
	case errors.Is(err, unix.EPERM):
		return nil, privilegeError("attach "+n.name, []string{"CAP_NET_ADMIN"})
	case errors.Is(err, unix.ENODEV):
		return nil, fmt.Errorf("interface %s: %w: it went away while it was being attached", n.name, ErrNoSuchNIC)
	case mode == ModeNative && errors.Is(err, unix.ERANGE):
		return nil, n.nativeMTUError()
	case mode == ModeNative && errors.Is(err, unix.ENOSPC) && n.kind == "veth":
		return nil, fmt.Errorf("interface %s: %w: %s has more TX queues than %s has RX queues; run `ethtool -L`, or use generic mode",
			n.name, ErrNoNativeXDP, n.peerName(), n.name)
	case mode == ModeNative:
		return nil, fmt.Errorf("interface %s: %w by its driver (%v); use generic mode", n.name, ErrNoNativeXDP, err)
	}
	return nil, fmt.Errorf("interface %s: attach XDP in %s mode: %w", n.name, mode, err)
}

// attachedByOther describes the XDP program that holds n.
func (n *nic) attachedByOther(id uint32) error {
	return fmt.Errorf("interface %s: %w: %s", n.name, ErrAttachedByOther, n.holder(id))
}

// holder names the XDP program that is on n and how to get rid of it.
func (n *nic) holder(id uint32) string {
	name := programName(id)
	remedy := fmt.Sprintf("remove it first (`ip link set %s xdp off`, or with the tool that attached it)", n.name)
	switch {
	case name == rawProgPasteRaw:
		remedy = "stop the program that has raw ports on it (`pastectl switch`, or one with package netmap)"
	case name != steerProgPasteSteer:
	case otherMountNS():
		remedy = "stop the application that attached it for its own lifetime; or, if it is pinned, enter the network namespace alone (`nsenter --net=/run/netns/NAME`), for this mount namespace does not see its pins"
	default:
		remedy = "stop the application that attached it for its own lifetime, or name the bpffs where it is pinned (PASTE_BPFFS)"
	}
	return fmt.Sprintf("XDP program %d (%s) is on it; %s", id, name, remedy)
}

// Counters returns how many packets got each decision, summed over all CPUs.
// A pinned Steer counts on while nobody has it open.
func (s *Steer) Counters() (map[string]uint64, error) {
	counters, err := readCounters(s.maps.SteerStats, steerCounters[:])
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", s.info.NIC, err)
	}
	return counters, nil
}

// Info describes the NIC as it was when it was attached or opened.
func (s *Steer) Info() SteerInfo { return s.info }

// Close releases the program and its maps: a pinned NIC stays attached, any
// other is detached. Further calls do nothing.
func (s *Steer) Close() error {
	s.closeOnce.Do(func() {
		if s.link != nil {
			s.closeErr = s.link.Close()
		}
		if s.order != nil {
			s.closeErr = errors.Join(s.closeErr, unix.Munmap(s.order))
		}
		s.closeErr = errors.Join(s.closeErr, s.maps.Close())
		if s.closeErr != nil {
			s.closeErr = fmt.Errorf("interface %s: close steering: %w", s.info.NIC, s.closeErr)
		}
	})
	return s.closeErr
}
