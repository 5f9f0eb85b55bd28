package pasteapi

import (
	"context"
	"errors"
	"fmt"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/xsk"
	"github.com/vishvananda/netlink"
)

// ReceiveMode says which ways in a port uses. They are described in
// docs/architecture.md, and what each costs in docs/performance.md.
type ReceiveMode int

const (
	// ReceiveAuto takes what costs least. The NIC's frames are steered where its
	// driver has AF_XDP zero-copy, with DurableAck, Copybreak, XDPMode or BindMode, and on a NIC that
	// `pastectl attach` has attached. Elsewhere no XDP program is attached: a connection
	// is read from its socket, and one that brings only small messages is copied by
	// the verdict program after a while. So it is, too, where the MTU is larger than the
	// pool's frames and none of those options was given.
	ReceiveAuto ReceiveMode = iota
	// ReceiveSteered steers the NIC's frames, whatever its driver can do.
	ReceiveSteered
	// ReceiveCopied attaches no XDP program, and copies all that the verdict
	// program can.
	ReceiveCopied
)

var receiveNames = [...]string{ReceiveAuto: "auto", ReceiveSteered: "steered", ReceiveCopied: "copied"}

// String returns "auto", "steered" or "copied".
func (m ReceiveMode) String() string {
	if m < 0 || int(m) >= len(receiveNames) {
		return fmt.Sprintf("ReceiveMode(%d)", int(m))
	}
	return receiveNames[m]
}

// ParseReceiveMode is the inverse of String.
func ParseReceiveMode(s string) (ReceiveMode, error) {
	for m, name := range receiveNames {
		if s == name {
			return ReceiveMode(m), nil
		}
	}
	return 0, fmt.Errorf("unknown way to receive %q: must be auto, steered or copied", s)
}

// MarshalText makes the mode a word in JSON.
func (m ReceiveMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (m *ReceiveMode) UnmarshalText(text []byte) (err error) {
	*m, err = ParseReceiveMode(string(text))
	return err
}

// decide says whether the NIC's frames are to be steered, and why, which it notes for
// Status.
func (p *Port) decide(ctx context.Context, nic netlink.Link) (steers bool, err error) {
	steers, why, err := p.opts.decide(ctx, nic)
	p.mu.Lock()
	p.why = why
	p.mu.Unlock()
	return steers, err
}

func (o *Options) decide(ctx context.Context, nic netlink.Link) (steers bool, why string, err error) {
	switch o.Receive {
	case ReceiveSteered:
		return true, "it was asked for", nil
	case ReceiveCopied:
		return false, "copying was asked for", nil
	}
	if o.DurableAck {
		return true, "what is acknowledged is to be durable", nil
	}
	if o.Copybreak != 0 || o.XDPMode != bpf.ModeAuto || o.BindMode != xsk.Auto {
		return true, "what was asked for is about steering (copybreak, XDP mode or bind mode)", nil
	}
	if err := fits(o, nic); err != nil {
		return false, fmt.Sprintf("its frames do not fit the pool's: %v", err), nil
	}
	pinned, err := bpf.OpenSteer(ctx, o.BPFFS, o.NIC)
	if err == nil {
		return true, "the interface is attached", pinned.Close()
	}
	if !errors.Is(err, bpf.ErrNotAttached) {
		return false, "", err
	}
	if zero, err := xsk.ZeroCopyCapable(nic.Attrs().Index); err == nil && zero {
		return true, "the driver has zero-copy", nil
	}
	return false, "the driver has no zero-copy, and without it XDP costs more than it saves", nil
}
