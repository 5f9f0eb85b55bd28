package bpf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockFile excludes those that pin, unpin or list from each other. It belongs to
// root alone: every user may lock a file or directory that every user can open. It
// is there only while somebody has it.
var lockFile = "/run/paste-bpffs.lock"

// lockPatience bounds the wait for the lock, whose holder needs milliseconds.
const lockPatience = 10 * time.Second

// pinLock is the lock on all pins. Without a file it is that of a user who may
// not create the file, and so change no pins either.
type pinLock struct{ f *os.File }

func lockPins(ctx context.Context) (*pinLock, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lockPatience,
		fmt.Errorf("another process holds the lock on %s (`lslocks` shows it)", lockFile))
	defer cancel()
	for {
		l, err := tryLockPins()
		if l != nil || err != nil {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// tryLockPins returns nil without an error if it has to be tried again.
func tryLockPins() (*pinLock, error) {
	f, err := os.OpenFile(lockFile, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		return &pinLock{}, nil
	}
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil && sameFile(f) {
		return &pinLock{f}, nil
	}
	f.Close()
	if err == nil || err == unix.EWOULDBLOCK || err == unix.EINTR {
		return nil, nil
	}
	return nil, os.NewSyscallError("flock", err)
}

// sameFile says whether f is still the lock file, and not one that its holder has
// removed.
func sameFile(f *os.File) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	now, err := os.Lstat(lockFile)
	return err == nil && os.SameFile(mine, now)
}

func (l *pinLock) release() {
	if l.f != nil {
		// Nobody else removes it, or makes another, while this one has it. What
		// stays if that fails does no harm.
		_ = os.Remove(lockFile)
		l.f.Close()
	}
}
