package bpf

import (
	"testing"

	"github.com/go-quicktest/qt"
)

func TestAttachForLifetime(t *testing.T) {
	for _, mode := range []XDPMode{ModeAuto, ModeNative, ModeGeneric} {
		t.Run(mode.String(), func(t *testing.T) {
			p := newPair(t)
			s, err := AttachSteer(t.Context(), SteerOptions{NIC: p.nic, Mode: mode})
			qt.Assert(t, qt.IsNil(err))
			info := s.Info()
			want := mode
			if mode == ModeAuto {
				want = ModeNative
			}
			qt.Check(t, qt.Equals(info.Mode, want))
			qt.Check(t, qt.Equals(info.NIC, p.nic))
			qt.Check(t, qt.Equals(info.MTU, 1500))
			qt.Check(t, qt.Equals(info.Queues, 1))
			qt.Check(t, qt.IsFalse(info.Pinned))
			qt.Check(t, qt.Equals(info.ProgID, p.xdp(t)))

			qt.Assert(t, qt.IsNil(s.Close()))
			qt.Assert(t, qt.IsNil(s.Close()))
			qt.Assert(t, qt.Equals(p.xdp(t), 0))
		})
	}
}
