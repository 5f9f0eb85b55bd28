package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// NICInfo is what a raw port must know of an interface before it takes it.
type NICInfo struct {
	Name    string // the primary one
	Ifindex int
	Kind    string // "veth", "device", …
	Queues  int    // RX queues in use
	MTU     int    // bytes
}

// LookupNIC describes an interface of the calling thread's network namespace. The
// error wraps ErrNoSuchNIC if there is none.
func LookupNIC(name string) (NICInfo, error) {
	n, err := lookupNIC(name)
	if err != nil {
		return NICInfo{}, err
	}
	return NICInfo{Name: n.name, Ifindex: n.ifindex, Kind: n.kind, Queues: n.rxQueues(), MTU: n.mtu}, nil
}

// Raw is the XDP program on a NIC that gives every frame of a queue to the queue's
// AF_XDP socket. Its methods may be called from several goroutines at once.
type Raw struct {
	link link.Link
	xsks *ebpf.Map
	name string

	mode     XDPMode
	fallback string
}

// AttachRaw attaches the program to a NIC, until Close or the end of the process.
// Frames of queues without a socket pass. The error wraps ErrNoSuchNIC,
// ErrNoPrivilege, ErrAttachedByOther, ErrMTU or ErrNoNativeXDP where one of
// these is the cause.
func AttachRaw(name string, queues int, mode XDPMode) (_ *Raw, err error) {
	n, err := lookupNIC(name)
	if err != nil {
		return nil, err
	}
	if err := requireCaps("attach "+n.name, "CAP_NET_ADMIN", "CAP_BPF"); err != nil {
		return nil, err
	}
	if n.xdpProg != 0 {
		return nil, n.attachedByOther(n.xdpProg)
	}
	spec, err := loadRaw()
	if err != nil {
		return nil, fmt.Errorf("load the program of raw ports: %w", err)
	}
	spec.Maps["raw_xsks"].MaxEntries = uint32(queues)
	var objs struct {
		Prog *ebpf.Program `ebpf:"paste_raw"`
		Xsks *ebpf.Map     `ebpf:"raw_xsks"`
	}
	if err := spec.LoadAndAssign(&objs, nil); err != nil {
		if errors.Is(err, unix.EPERM) {
			return nil, privilegeError("load the program of raw ports", []string{"CAP_BPF", "CAP_NET_ADMIN"})
		}
		return nil, fmt.Errorf("load the program of raw ports: %w", err)
	}
	defer objs.Prog.Close() // the link keeps it
	r := &Raw{xsks: objs.Xsks, name: n.name}
	if r.link, r.fallback, err = linkXDP(n, objs.Prog, mode); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	if n, err = lookupNIC(name); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	r.mode = n.xdpMode
	return r, nil
}

// Mode is the mode that was obtained, and, if it is generic because native mode was
// refused, why.
func (r *Raw) Mode() (mode XDPMode, fallback string) { return r.mode, r.fallback }

// SetSocket has the frames of a queue go to an AF_XDP socket.
func (r *Raw) SetSocket(queue, fd int) error {
	if err := r.xsks.Put(uint32(queue), uint32(fd)); err != nil {
		return fmt.Errorf("interface %s: give queue %d to its AF_XDP socket: %w", r.name, queue, err)
	}
	return nil
}

// ClearSocket has the frames of a queue pass.
func (r *Raw) ClearSocket(queue int) error {
	if err := r.xsks.Delete(uint32(queue)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("interface %s: take queue %d from its AF_XDP socket: %w", r.name, queue, err)
	}
	return nil
}

// Close detaches the program.
func (r *Raw) Close() error {
	var errs []error
	if r.link != nil {
		errs = append(errs, r.link.Close())
	}
	errs = append(errs, r.xsks.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("interface %s: detach the program of raw ports: %w", r.name, err)
	}
	return nil
}

// RawHost are the programs between a NIC and the TAP device of its host's rings.
type RawHost struct {
	links []link.Link
}

// AttachRawHost has what is received on the TAP device come in on the NIC, and what
// the kernel sends by the NIC go to the TAP device in its stead, until Close or the
// end of the process. Both are interfaces of the calling thread's network namespace.
// Frames that an AF_XDP socket sends do not come by here. In generic mode the XDP
// program of a NIC sees once more what comes in this way, so it must not be
// AttachRaw's.
func AttachRawHost(nic, tap int) (_ *RawHost, err error) {
	fail := func(err error) error {
		return fmt.Errorf("attach the programs of the host's rings to interface %d: %w", nic, err)
	}
	spec, err := loadRaw()
	if err != nil {
		return nil, fail(err)
	}
	if err := errors.Join(spec.Variables["host_nic"].Set(uint32(nic)), spec.Variables["host_tap"].Set(uint32(tap))); err != nil {
		return nil, fail(err)
	}
	var objs struct {
		To   *ebpf.Program `ebpf:"paste_to_host"`
		From *ebpf.Program `ebpf:"paste_from_host"`
	}
	if err := spec.LoadAndAssign(&objs, nil); err != nil {
		return nil, fail(err)
	}
	defer objs.To.Close() // the links keep them
	defer objs.From.Close()
	h := &RawHost{}
	for _, o := range []link.TCXOptions{
		{Interface: tap, Program: objs.To, Attach: ebpf.AttachTCXIngress},
		// Last, so that programs of others see what the kernel sends.
		{Interface: nic, Program: objs.From, Attach: ebpf.AttachTCXEgress, Anchor: link.Tail()},
	} {
		l, err := link.AttachTCX(o)
		if err != nil {
			return nil, errors.Join(fail(err), h.Close())
		}
		h.links = append(h.links, l)
	}
	return h, nil
}

// Close detaches the programs.
func (h *RawHost) Close() error {
	var errs []error
	for _, l := range h.links {
		errs = append(errs, l.Close())
	}
	h.links = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("detach the programs of the host's rings: %w", err)
	}
	return nil
}
