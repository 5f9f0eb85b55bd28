package pasteapi_test

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// TestCloseRemovesDevices: when Close has returned, no injection device is left.
func TestCloseRemovesDevices(t *testing.T) {
	l := newLab(t, netlab.Config{})
	o := pasteapi.Options{NIC: l.ServerDev, Pool: newPool(t, 64<<20), Rings: 2, Receive: pasteapi.ReceiveSteered}
	devices := func() (names []string) {
		all, err := net.Interfaces()
		qt.Assert(t, qt.IsNil(err))
		for _, i := range all {
			if strings.HasPrefix(i.Name, "pst") {
				names = append(names, i.Name)
			}
		}
		return names
	}
	for range 5 {
		err := l.InServer(func() error {
			p, err := pasteapi.Open(context.Background(), o)
			if err != nil {
				return err
			}
			qt.Check(t, qt.HasLen(devices(), o.Rings))
			err = p.Close()
			qt.Check(t, qt.HasLen(devices(), 0))
			return err
		})
		qt.Assert(t, qt.IsNil(err))
	}
}

// A pool is not closed under an open port.
func TestPoolOutlivesPort(t *testing.T) {
	pool, err := pmem.NewMemory("close-test", pmem.Options{Size: 32 << 20})
	qt.Assert(t, qt.IsNil(err))
	p, err := pasteapi.Open(t.Context(), pasteapi.Options{Pool: pool})
	qt.Assert(t, qt.IsNil(err))
	err = pool.Close()
	qt.Assert(t, qt.ErrorIs(err, pmem.ErrBusy))
	qt.Assert(t, qt.ErrorMatches(err, ".*held by a port without a NIC.*"))
	qt.Assert(t, qt.IsNil(p.Close()))
	qt.Assert(t, qt.IsNil(pool.Close()))
}
