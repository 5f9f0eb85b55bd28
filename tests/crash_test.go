package tests

import (
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
)

// A pool on a disk cannot be received into. It is staged, the user is told,
// and acknowledged records survive a kill as anywhere.
func TestPoolOnDisk(t *testing.T) {
	l := newLab(t, netlab.Config{})
	path := diskFile(t)
	c := newClient(t, l)
	acked := map[uint64][32]byte{}
	for round := range 3 {
		s := serve(t, l, path, "--pool-size", "32MiB")
		c.CloseIdleConnections()
		qt.Check(t, qt.StringContains(s.ready.Port.Pool.Durability, "staged"))
		for i := range 10 {
			data := random(1+i*20_000, int64(round*10+i))
			seq, err := post(c, s.url, data)
			qt.Assert(t, qt.IsNil(err))
			acked[seq] = sum(data)
		}
		s.Kill()
		qt.Check(t, qt.DeepEquals(readLog(t, path), acked))
	}
}
