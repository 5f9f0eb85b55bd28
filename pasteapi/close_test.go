package pasteapi_test

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/pasteapi"
)

// TestCloseRemovesDevices: when Close has returned, no injection device is left.
func TestCloseRemovesDevices(t *testing.T) {
	l := newLab(t, netlab.Config{})
	o := pasteapi.Options{NIC: l.ServerDev, Pool: newPool(t, 64<<20), Rings: 2}
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
