package pasteapi

import (
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/pasteapi/internal/receive"
	"github.com/pastenet/paste/pmem"
)

// What rings and queues take leaves a good part of the pool to the application, or is
// refused.
func TestFillSize(t *testing.T) {
	for _, tc := range []struct {
		mib, rings, queues, want int
	}{
		{1024, 1, 8, receive.FillSize},
		{64, 1, 1, receive.FillSize},
		{64, 1, 8, 512},
		{32, 1, 8, 256},
		{128, 8, 8, 512},
		{16, 1, 1, 512},
		{16, 1, 8, 128},
		{16, 2, 1, 128},
		{12, 1, 1, 128},
		{16, 1, 16, 0},
		{32, 8, 8, 0},
	} {
		pool, err := pmem.NewMemory("size-test", pmem.Options{Size: int64(tc.mib) << 20})
		qt.Assert(t, qt.IsNil(err))
		got, err := fillSize(&Options{Pool: pool, Rings: tc.rings, Slots: 1024, NIC: "eth0"}, tc.queues)
		qt.Check(t, qt.Equals(got, tc.want), qt.Commentf("%+v: %v", tc, err))
		if tc.want == 0 {
			qt.Check(t, qt.ErrorIs(err, ErrNoBuffers))
			qt.Check(t, qt.ErrorMatches(err, `[0-9]+ rings and [0-9]+ RX queues of eth0 want a pool of at least [0-9]+ frames, and it has [0-9]+ of 2048 bytes: .*`))
		}
		qt.Assert(t, qt.IsNil(pool.Close()))
	}
}
