package bpf

import "errors"

// Sentinels of this package; test for them with errors.Is. The errors that
// wrap them carry the names, numbers and remedies.
var (
	// ErrNotAttached means that nothing of ours is pinned for the NIC.
	ErrNotAttached = errors.New("not attached")

	// ErrAttachedByOther means that another XDP program holds the NIC: one of
	// another tool, or ours in another process or another mount namespace.
	ErrAttachedByOther = errors.New("already attached by another")
	// ErrReplaced means that somebody has put another program into the link of the
	// steering program (BPF_LINK_UPDATE).
	ErrReplaced = errors.New("the steering program was replaced")

	// ErrOtherMode means that the NIC is attached already, in another mode
	// than the one asked for.
	ErrOtherMode = errors.New("already attached in another mode")

	// ErrOtherVersion means that what is pinned for the NIC was made by another
	// version of this package.
	ErrOtherVersion = errors.New("attached by another version")

	// ErrNoSuchNIC means that the calling thread's network namespace has no
	// interface of that name.
	ErrNoSuchNIC = errors.New("no such interface")

	// ErrNoPrivilege means that the process lacks a capability.
	ErrNoPrivilege = errors.New("no privilege")

	// ErrKernelTooOld means that the running kernel lacks a feature that the
	// datapath needs, because of its age or its configuration.
	ErrKernelTooOld = errors.New("missing kernel feature")

	// ErrMTU means that frames of the NIC, or of the other end of a veth pair,
	// may be larger than one page can hold.
	ErrMTU = errors.New("MTU too large")

	// ErrNoNativeXDP means that the NIC's driver refused native XDP for another
	// reason than its MTU.
	ErrNoNativeXDP = errors.New("native XDP refused")

	// ErrNoBPFFS means that there is no bpffs in which a pin would last.
	ErrNoBPFFS = errors.New("no bpffs")
)
