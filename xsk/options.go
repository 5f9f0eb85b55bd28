package xsk

import (
	"errors"
	"fmt"
	"time"
)

// BindMode says how frames get between the device and the UMEM.
type BindMode int

const (
	// Auto takes zero-copy where the driver has it and copy mode otherwise.
	// Socket.ZeroCopy tells which it was.
	Auto BindMode = iota
	// Copy makes the kernel copy each frame; every device can do it.
	Copy
	// ZeroCopy lets the device write to and read from the UMEM itself, or fails with
	// ErrNotSupported.
	ZeroCopy
)

var modeNames = [...]string{Auto: "auto", Copy: "copy", ZeroCopy: "zero-copy"}

// String returns "auto", "copy" or "zero-copy".
func (m BindMode) String() string {
	if m < 0 || int(m) >= len(modeNames) {
		return fmt.Sprintf("BindMode(%d)", int(m))
	}
	return modeNames[m]
}

// MarshalText makes the mode a word in JSON.
func (m BindMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (m *BindMode) UnmarshalText(text []byte) error {
	for i, name := range modeNames {
		if string(text) == name {
			*m = BindMode(i)
			return nil
		}
	}
	return fmt.Errorf("unknown bind mode %q: must be auto, copy or zero-copy", text)
}

// BusyPoll makes system calls on the socket run the driver's receive processing
// themselves instead of waiting for its interrupt. It only has an effect on devices whose
// queue belongs to one NAPI instance.
type BusyPoll struct {
	Prefer bool          // SO_PREFER_BUSY_POLL: keep interrupts masked while the program polls
	Time   time.Duration // SO_BUSY_POLL: how long to poll, rounded down to microseconds
	Budget int           // SO_BUSY_POLL_BUDGET: most frames per poll; 0 keeps the kernel's value
}

// Options says which queue to bind to and how.
type Options struct {
	Ifindex int // network device, in the network namespace of the calling thread
	Queue   int // hardware queue, from 0

	// Entries of the rings, powers of two. 0 in RxSize or TxSize means that there is no
	// such ring; at least one of them is needed. The kernel insists on the other two: 0
	// gives them the size of the RX (fill) or TX (completion) ring, or 64 where there is
	// none.
	FillSize, CompSize, RxSize, TxSize int

	Mode BindMode

	// NeedWakeup (XDP_USE_NEED_WAKEUP) lets the kernel say when it wants to be woken, see
	// FillNeedsWakeup and TxNeedsWakeup. Recommended with zero-copy.
	NeedWakeup bool

	// MultiBuffer (XDP_USE_SG) has a frame that one buffer is too small for received
	// into several, and lets a frame be sent from several: DescMore. In zero-copy mode
	// few drivers can (ErrNotSupported); with Auto, others get copy mode.
	MultiBuffer bool

	BusyPoll *BusyPoll // nil: none

	// NoWait has ErrBusy come at once when another socket has the queue. Otherwise Open
	// waits for it, for 20 seconds and more: of a process that was killed the kernel
	// takes a queue back some time later.
	NoWait bool

	// TxBudget is the most descriptors that one KickTx sends in copy mode: 32 up to
	// TxSize; 0 keeps the kernel's 32. A wish (XDP_MAX_TX_SKB_BUDGET, Linux 6.17): values
	// are brought into the range, older kernels ignore it. Socket.TxBudget tells what was
	// obtained.
	TxBudget int
}

// defaultRing is the size of a ring that the kernel wants but the program does not use.
const defaultRing = 64

// defaultTxBudget is TX_BATCH_SIZE of the kernel's net/xdp/xsk.c.
const defaultTxBudget = 32

// maxTxSkbBudget is XDP_MAX_TX_SKB_BUDGET of include/uapi/linux/if_xdp.h.
const maxTxSkbBudget = 9

// complete checks o and fills in the defaults.
func (o *Options) complete() error {
	if o.Ifindex <= 0 {
		return fmt.Errorf("interface index %d is not valid", o.Ifindex)
	}
	if o.Queue < 0 {
		return fmt.Errorf("queue %d is not valid", o.Queue)
	}
	if o.Mode < Auto || o.Mode > ZeroCopy {
		return fmt.Errorf("unknown mode %v", o.Mode)
	}
	if o.RxSize == 0 && o.TxSize == 0 {
		return errors.New("neither an RX nor a TX ring was asked for")
	}
	for _, r := range []struct {
		name string
		size int
	}{{"RX", o.RxSize}, {"TX", o.TxSize}, {"fill", o.FillSize}, {"completion", o.CompSize}} {
		if r.size != 0 && !powerOfTwo(r.size) {
			return fmt.Errorf("size %d of the %s ring is not a power of two", r.size, r.name)
		}
	}
	if o.FillSize == 0 {
		o.FillSize = max(o.RxSize, defaultRing)
	}
	if o.CompSize == 0 {
		o.CompSize = max(o.TxSize, defaultRing)
	}
	return nil
}
