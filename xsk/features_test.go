package xsk_test

import (
	"net"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/xsk"
)

// TestZeroCopyCapable: the loopback device has no XDP in its driver, and an
// interface that is not there is an error.
func TestZeroCopyCapable(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	qt.Assert(t, qt.IsNil(err))
	yes, err := xsk.ZeroCopyCapable(lo.Index)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsFalse(yes))
	_, err = xsk.ZeroCopyCapable(1 << 30)
	qt.Check(t, qt.ErrorMatches(err, "look up XDP features of interface 1073741824: .*"))
}
