package xsk_test

import (
	"net"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/testkernel"
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

// TestNAPIs: the loopback device is not polled.
func TestNAPIs(t *testing.T) {
	testkernel.SkipBefore(t, "6.8", "the list of NAPI instances")
	lo, err := net.InterfaceByName("lo")
	qt.Assert(t, qt.IsNil(err))
	n, err := xsk.NAPIs(lo.Index)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(n, 0))
	_, err = xsk.NAPIs(1 << 30)
	qt.Check(t, qt.ErrorMatches(err, "list NAPI instances of interface 1073741824: .*"))
}
