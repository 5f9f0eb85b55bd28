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
}

func newSleeper(ring *pasteapi.Ring) (*sleeper, error) {
	fd, err := ring.EdgeFd()
	if err != nil {
		return nil, err
	}
	if fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return nil, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
	}
	// Only what is non-blocking is given to the poller.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl O_NONBLOCK", err)
	}
	s := &sleeper{ring: ring, file: os.NewFile(uintptr(fd), "ring")}
	if s.raw, err = s.file.SyscallConn(); err == nil {
		err = s.file.SetReadDeadline(time.Time{}) // fails if the poller does not have it
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
	waitErr := s.raw.Read(func(uintptr) bool {
		n, err = s.ring.Poll(0)
		return n > 0 || err != nil || len(s.ring.Ready()) > 0 || busy()
	})
	return n, errors.Join(err, waitErr)
}

func (s *sleeper) close() { _ = s.file.Close() }
