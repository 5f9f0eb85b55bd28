package ringnet

import (
	"net"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a descriptor that any goroutine may use while it is open. Nothing that is
// done under its lock waits.
type socket struct {
	mu    sync.Mutex
	fd    int  // -1: closed
	ended bool // it is about to be closed, and nobody may use it
}

const (
	shutRead  = unix.SHUT_RD
	shutWrite = unix.SHUT_WR
)

// quickSend is up to how many bytes are sent in a system call that Go's scheduler is
// not told of: telling it costs as much as copying a page.
const quickSend = 16 << 10

// send sends what the socket takes of b.
func (s *socket) send(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return 0, net.ErrClosed
	}
	if len(b) == 0 {
		return 0, nil
	}
	call := unix.RawSyscall6
	if len(b) > quickSend {
		call = unix.Syscall6
	}
	n, _, errno := call(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// sendFile sends up to n bytes of a file from where it stands.
func (s *socket) sendFile(file, n int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return 0, net.ErrClosed
	}
	n, err := unix.Sendfile(s.fd, file, nil, n)
	return max(n, 0), err
}

// do calls f with the descriptor. f must not wait.
func (s *socket) do(f func(fd int) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return net.ErrClosed
	}
	return f(s.fd)
}

func (s *socket) shutdown(how int) error {
	return s.do(func(fd int) error { return os.NewSyscallError("shutdown", unix.Shutdown(fd, how)) })
}

// set sets an option.
func (s *socket) set(level, option, value int) error {
	return s.do(func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, option, value))
	})
}

// end has nobody use the descriptor from now on.
func (s *socket) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
}

// close closes the descriptor, once.
func (s *socket) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil
	}
	err := unix.Close(s.fd)
	s.fd, s.ended = -1, true
	return os.NewSyscallError("close", err)
}
