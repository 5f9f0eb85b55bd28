package bpf

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// TestLockOfUsers: what every user can lock, the directory above a bpffs among it,
// keeps nobody from attaching.
func TestLockOfUsers(t *testing.T) {
	p, dir := newPair(t), bpffsDir(t)
	for _, path := range []string{filepath.Dir(dir), dir, "/sys/fs", "/run"} {
		f, err := os.Open(path)
		qt.Assert(t, qt.IsNil(err))
		defer f.Close()
		qt.Assert(t, qt.IsNil(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)))
	}
	ctx, cancel := context.WithTimeout(t.Context(), lockPatience/2)
	defer cancel()
	s, err := AttachSteer(ctx, SteerOptions{NIC: p.nic, Pin: true, BPFFS: dir})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(s.Close()))
	// Of what is there while somebody has the lock users can open nothing.
	l, err := lockPins(ctx)
	qt.Assert(t, qt.IsNil(err))
	info, err := os.Stat(lockFile)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(info.Mode(), 0o600))
	l.release()
	qt.Assert(t, qt.IsNil(DetachSteer(ctx, dir, p.nic)))
}

// TestLockWaits: one waits for another, and until its context ends.
func TestLockWaits(t *testing.T) {
	dir := bpffsDir(t)
	first, err := lockPins(t.Context())
	qt.Assert(t, qt.IsNil(err))
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	ended := make(chan error, 1)
	go func() {
		_, err := ListSteer(ctx, dir)
		ended <- err
	}()
	select {
	case err := <-ended:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	cancel(stopped)
	qt.Check(t, qt.ErrorIs(<-ended, stopped))

	got := make(chan *pinLock, 1)
	go func() {
		l, err := lockPins(t.Context())
		qt.Check(t, qt.IsNil(err))
		got <- l
	}()
	first.release()
	second := <-got
	qt.Assert(t, qt.IsNotNil(second))
	second.release()
	_, err = os.Stat(lockFile)
	qt.Check(t, qt.ErrorIs(err, os.ErrNotExist))
}

// TestOpenChangesNothing: who looks at a NIC does not change what its application
// relies on.
func TestOpenChangesNothing(t *testing.T) {
	p, dir := newPair(t), bpffsDir(t)
	s, err := AttachSteer(t.Context(), SteerOptions{NIC: p.nic, Pin: true, BPFFS: dir})
	qt.Assert(t, qt.IsNil(err))
	defer s.Close()
	qt.Assert(t, qt.IsNil(s.Configure(FrameRoom(2048), 1)))
	config := func() (c steerNicConfig) {
		qt.Assert(t, qt.IsNil(s.maps.SteerConfig.Lookup(uint32(0), &c)))
		return c
	}
	before := config()
	qt.Check(t, qt.Equals(before.Room, 2048-256))
	p.setMTU(t, 3000)
	other, err := OpenSteer(t.Context(), dir, p.nic)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(other.Close()))
	_, err = ListSteer(t.Context(), dir)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(config(), before))
	qt.Assert(t, qt.IsNil(DetachSteer(t.Context(), dir, p.nic)))
}
