package ringnet

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// sleeper waits for a ring in Go's own poller, so that a pump that has nothing to do
// takes neither a thread nor a processor of Go's scheduler.
type sleeper struct {
	ring *pasteapi.Ring
	file *os.File
	raw  syscall.RawConn
	due  time.Time // when the wait ends at the latest
}

func newSleeper(ring *pasteapi.Ring) (*sleeper, error) {
	fd, err := unix.FcntlInt(uintptr(ring.Fd()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
	}
	// Only what is non-blocking is given to the poller.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl O_NONBLOCK", err)
	}
	s := &sleeper{ring: ring, file: os.NewFile(uintptr(fd), "ring")}
	if s.raw, err = s.file.SyscallConn(); err == nil {
		err = s.file.SetReadDeadline(time.Time{})
	}
	if err != nil {
		s.file.Close()
		return nil, fmt.Errorf("wait for a ring: %w", err)
	}
	return s, nil
}

// until waits until the ring has something, or busy says so. It returns the number of
// slots.
func (s *sleeper) until(busy func() bool) (n int, err error) {
	for {
		waitErr := s.raw.Read(func(uintptr) bool {
			var wait time.Duration
			n, wait, err = s.ring.Await()
			if n > 0 || wait == 0 || err != nil || busy() {
				return true
			}
			return s.limit(wait) != nil
		})
		if !errors.Is(waitErr, os.ErrDeadlineExceeded) {
			return n, errors.Join(err, waitErr)
		}
		s.due = time.Time{}
		if waitErr = s.file.SetReadDeadline(s.due); waitErr != nil {
			return 0, waitErr
		}
	}
}

// limit has the wait end in time. A deadline that is on its way is left alone, if it
// comes soon enough and not too soon.
func (s *sleeper) limit(wait time.Duration) error {
	now := time.Now()
	if left := s.due.Sub(now); left > wait/2 && left <= wait {
		return nil
	}
	s.due = now.Add(wait)
	return s.file.SetReadDeadline(s.due)
}

func (s *sleeper) close() { _ = s.file.Close() }
