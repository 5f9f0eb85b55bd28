package xsk_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/xsk"
)

// frame builds the n-th test frame: an Ethernet header of an experimental type, n, and random bytes.
func frame(dst, src end, n int, size int) []byte {
	b := make([]byte, 0, size)
	b = append(b, dst.mac...)
	b = append(b, src.mac...)
	b = binary.BigEndian.AppendUint16(b, 0x88b5)
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)})
	rest := make([]byte, size-len(b))
	r.Read(rest)
	return append(b, rest...)
}

// isTest tells test frames from what a kernel says on its own.
func isTest(b []byte) bool { return len(b) >= 18 && bytes.Equal(b[12:14], []byte{0x88, 0xb5}) }

// exchange sends count frames from tx to rx and compares what arrives. tx uses the
// frames of its Umem from txFirst on and rx those from rxFirst on, 64 each.
func exchange(t *testing.T, tx, rx *xsk.Socket, txU, rxU *xsk.Umem, from, to end, txFirst, rxFirst, count int) {
	t.Helper()
	want := make(map[uint32][32]byte, count)
	qt.Assert(t, qt.Equals(rx.FillFrames(frames(rxFirst, rxFirst+64)), 64))

	free := frames(txFirst, txFirst+64)
	descs := make([]xsk.Desc, 16)
	addrs := make([]uint64, 16)
	sent, got := 0, 0
	until(t, "all frames", func() bool {
		for sent < count && len(free) > 0 && tx.TxFree() > 0 && sent-got < 48 {
			f := free[len(free)-1]
			free = free[:len(free)-1]
			d := xsk.Desc{Addr: uint64(f)*frameSize + 64, Len: uint32(64 + (sent*37)%1400)}
			b := frame(to, from, sent, int(d.Len))
			copy(txU.Bytes(d), b)
			want[uint32(sent)] = sha256.Sum256(b)
			qt.Assert(t, qt.Equals(tx.Transmit([]xsk.Desc{d}), 1))
			sent++
		}
		if tx.TxPending() > 0 {
			if err := tx.KickTx(); err != nil {
				qt.Assert(t, qt.ErrorIs(err, xsk.ErrAgain))
			}
		}
		for _, a := range addrs[:tx.Complete(addrs)] {
			free = append(free, uint32(a/frameSize))
		}
		for _, d := range descs[:rx.Receive(descs)] {
			if b := rxU.Bytes(d); isTest(b) {
				n := binary.BigEndian.Uint32(b[14:])
				qt.Assert(t, qt.Equals(sha256.Sum256(b), want[n]))
				delete(want, n)
				got++
			}
			qt.Assert(t, qt.Equals(rx.Fill([]uint64{d.Addr}), 1))
		}
		return got == count && len(free) == 64
	})
	qt.Assert(t, qt.HasLen(want, 0))
	st, err := rx.Stats()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(st.RxInvalidDescs+st.RxDropped+st.RxRingFull, 0))
	st, err = tx.Stats()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(st.TxInvalidDescs, 0))
}

func TestExchangeBothWays(t *testing.T) {
	b := newBed(t, 1, 1)
	p := b.pairs[0]
	un := newUmem(t, anonymous(t, 512*frameSize), xsk.UmemConfig{})
	uf := newUmem(t, anonymous(t, 512*frameSize), xsk.UmemConfig{Headroom: 128})
	sn, sf := mustOpen(t, p.near, 0, un), mustOpen(t, p.far, 0, uf)
	steer(t, p.near, sn)
	steer(t, p.far, sf)
	exchange(t, sn, sf, un, uf, p.near, p.far, 0, 64, 2000)
	exchange(t, sf, sn, uf, un, p.far, p.near, 0, 64, 2000)
}
