package bpf

import (
	"fmt"

	"github.com/cilium/ebpf/link"
)

// XDPMode says where in the receive path the XDP program runs.
type XDPMode int

const (
	// ModeAuto asks for native mode and takes generic mode when the driver
	// has no native XDP.
	ModeAuto XDPMode = iota
	// ModeNative runs the program in the driver, before an sk_buff exists.
	ModeNative
	// ModeGeneric runs the program in the network stack; it works with every
	// driver and costs a copy.
	ModeGeneric
)

var modeNames = [...]string{ModeAuto: "auto", ModeNative: "native", ModeGeneric: "generic"}

// String returns "auto", "native" or "generic".
func (m XDPMode) String() string {
	if m < 0 || int(m) >= len(modeNames) {
		return fmt.Sprintf("XDPMode(%d)", int(m))
	}
	return modeNames[m]
}

// ParseXDPMode is the inverse of String.
func ParseXDPMode(s string) (XDPMode, error) {
	for m, name := range modeNames {
		if s == name {
			return XDPMode(m), nil
		}
	}
	return ModeAuto, fmt.Errorf("unknown XDP mode %q: must be auto, native or generic", s)
}

// MarshalText makes the mode a word in JSON.
func (m XDPMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (m *XDPMode) UnmarshalText(text []byte) (err error) {
	*m, err = ParseXDPMode(string(text))
	return err
}

func (m XDPMode) flags() link.XDPAttachFlags {
	if m == ModeGeneric {
		return link.XDPGenericMode
	}
	return link.XDPDriverMode
}
