package pasteapi

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/pmem"
	"go.uber.org/goleak"
)

// Ports without a NIC are listed, with what their applications tell, until they are
// closed.
func TestListPortsWithoutNIC(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	controlNetns(t)
	pool, err := pmem.NewMemory("unnamed", pmem.Options{Size: 32 << 20})
	qt.Assert(t, qt.IsNil(err))
	defer func() { qt.Check(t, qt.IsNil(pool.Close())) }()
	first, err := Open(t.Context(), Options{Pool: pool})
	qt.Assert(t, qt.IsNil(err))
	second, err := Open(t.Context(), Options{Pool: pool})
	qt.Assert(t, qt.IsNil(err))
	second.Describe(func() App { return App{Name: "second", Counters: map[string]uint64{"requests": 7}} })

	ports, err := ListPorts(context.Background())
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(ports, 2))
	var apps []App
	for _, p := range ports {
		qt.Check(t, qt.Equals(p.NIC, ""))
		qt.Check(t, qt.Equals(p.PID, os.Getpid()))
		qt.Check(t, qt.Equals(p.Status.Pool.Frames, pool.Frames()))
		if p.Status.App != nil {
			apps = append(apps, *p.Status.App)
		}
	}
	qt.Check(t, qt.DeepEquals(apps, []App{{Name: "second", Counters: map[string]uint64{"requests": 7}}}))

	qt.Assert(t, qt.IsNil(errors.Join(first.Close(), second.Close())))
	ports, err = ListPorts(context.Background())
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(ports, 0))
}
