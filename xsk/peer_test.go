package xsk_test

import (
	"bytes"
	"testing"

	"github.com/asavie/xdp"
	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/xsk"
)

// TestIndependentPeer talks to another implementation of AF_XDP, both ways.
func TestIndependentPeer(t *testing.T) {
	p := newPair(t, 1)
	u := newUmem(t, anonymous(t, 128*frameSize), xsk.UmemConfig{})
	ours := mustOpen(t, p.near, 0, u)
	var theirs *xdp.Socket
	netlabtest.In(t, p.far.ns, func() {
		var err error
		theirs, err = xdp.NewSocket(p.far.index, 0, &xdp.SocketOptions{
			NumFrames: 128, FrameSize: frameSize,
			FillRingNumDescs: 64, CompletionRingNumDescs: 64, RxRingNumDescs: 64, TxRingNumDescs: 64,
		})
		qt.Assert(t, qt.IsNil(err))
	})
	defer theirs.Close()
	steer(t, p.near, ours.Fd())
	steer(t, p.far, theirs.FD())
	qt.Assert(t, qt.Equals(ours.FillFrames(frames(64, 128)), 64))

	const count = 500
	var want, got [][]byte
	for i := range count {
		want = append(want, frame(p.far, p.near, i, 60+i%1400))
	}

	// To the peer.
	free := frames(0, 64)
	addrs := make([]uint64, 64)
	sent := 0
	until(t, "the peer to receive", func() bool {
		theirs.Fill(theirs.GetDescs(min(32, theirs.NumFreeFillSlots())))
		for sent < count && len(free) > 0 && sent-len(got) < 16 {
			d := xsk.Desc{Addr: uint64(free[0]) * frameSize, Len: uint32(len(want[sent]))}
			copy(u.Bytes(d), want[sent])
			qt.Assert(t, qt.Equals(ours.Transmit([]xsk.Desc{d}), 1))
			free = free[1:]
			sent++
		}
		kick(t, ours)
		for _, a := range addrs[:ours.Complete(addrs)] {
			free = append(free, uint32(a/frameSize))
		}
		for _, d := range theirs.Receive(theirs.NumReceived()) {
			if b := theirs.GetFrame(d); isTest(b) {
				got = append(got, bytes.Clone(b))
			}
		}
		return len(got) == count
	})
	qt.Assert(t, qt.DeepEquals(got, want))

	// From the peer.
	got = nil
	descs := make([]xsk.Desc, 16)
	sent = 0
	until(t, "frames of the peer", func() bool {
		if n := theirs.NumCompleted(); n > 0 {
			theirs.Complete(n)
		}
		if sent < count && sent-len(got) < 32 && theirs.NumFreeTxSlots() > 0 {
			if ds := theirs.GetDescs(1); len(ds) > 0 {
				ds[0].Len = uint32(len(want[sent]))
				copy(theirs.GetFrame(ds[0]), want[sent])
				qt.Assert(t, qt.Equals(theirs.Transmit(ds), 1))
				sent++
			}
		}
		for _, d := range descs[:ours.Receive(descs)] {
			if b := u.Bytes(d); isTest(b) {
				got = append(got, bytes.Clone(b))
			}
			qt.Assert(t, qt.Equals(ours.Fill([]uint64{d.Addr}), 1))
		}
		return len(got) == count
	})
	qt.Assert(t, qt.DeepEquals(got, want))
}
