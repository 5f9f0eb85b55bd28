package tests

import (
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// usePrivateBPFFS lets pastectl pin in a bpffs of the test's own.
func usePrivateBPFFS(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("PASTE_BPFFS", dir)
	t.Cleanup(func() {
		// The last detach has unmounted it.
		qt.Check(t, qt.ErrorIs(unix.Unmount(dir, 0), unix.EINVAL))
	})
}
