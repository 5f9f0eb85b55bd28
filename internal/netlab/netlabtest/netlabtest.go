// Package netlabtest gives tests their network: labs and namespaces that go when
// the test ends. It fails a test that has not the privilege for them.
package netlabtest

import (
	"context"
	"os"
	"runtime"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
)

// New builds a lab for the time of the test.
func New(t testing.TB, cfg netlab.Config) *netlab.Lab {
	t.Helper()
	RequireRoot(t)
	l, err := netlab.New(context.Background(), cfg)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(l.Close())) })
	return l
}

// NewNetns makes an empty namespace for the time of the test.
func NewNetns(t testing.TB) *netlab.Netns {
	t.Helper()
	RequireRoot(t)
	ns, err := netlab.NewNetns()
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(ns.Close())) })
	return ns
}

// Enter moves the calling goroutine, which is the test's, into a namespace until
// the test ends. Goroutines and processes that it starts: the first are not
// in the namespace, the second are.
func Enter(t testing.TB, ns *netlab.Netns) {
	t.Helper()
	runtime.LockOSThread()
	home, err := netlab.Current()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(ns.Set()))
	t.Cleanup(func() {
		// A thread that cannot return stays locked and dies with its goroutine.
		if home.Set() == nil {
			runtime.UnlockOSThread()
		}
		qt.Check(t, qt.IsNil(home.Close()))
	})
}

// In runs f on the calling goroutine with its thread in a namespace.
func In(t testing.TB, ns *netlab.Netns, f func()) {
	t.Helper()
	qt.Assert(t, qt.IsNil(ns.Do(func() error { f(); return nil })))
}

// RequireRoot fails a test that has not the privilege which it needs, rather than to
// let it pass.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces and BPF need root: run this test as root")
	}
}
