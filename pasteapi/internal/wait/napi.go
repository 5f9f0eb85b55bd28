package wait

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of include/uapi/linux/eventpoll.h.
const (
	setParams  = 0x40088a01 // EPIOCSPARAMS
	napiBudget = 64         // packets a poll takes; more needs privilege
)

// epollParams is struct epoll_params.
type epollParams struct {
	busyPollUsecs  uint32
	busyPollBudget uint16
	preferBusyPoll uint8
	_              uint8
}

// PollNAPI has a sleep begin with polling, for so long, the NIC queue from which
// the descriptors that are watched receive, and the NIC's interrupts stay off while
// that goes on.
func (w *Waiter) PollNAPI(d time.Duration) error {
	p := epollParams{busyPollUsecs: uint32(d.Microseconds()), busyPollBudget: napiBudget, preferBusyPoll: 1}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(w.epoll), setParams, uintptr(unsafe.Pointer(&p)))
	switch {
	case errno == 0:
		return nil
	case errno == unix.ENOTTY || errno == unix.EINVAL:
		return fmt.Errorf("busy polling of a NIC: %w: it needs Linux 6.9 or newer", errors.ErrUnsupported)
	case errno == unix.EOPNOTSUPP:
		return fmt.Errorf("busy polling of a NIC: %w: this kernel was built without CONFIG_NET_RX_BUSY_POLL", errors.ErrUnsupported)
	}
	return os.NewSyscallError("ioctl EPIOCSPARAMS", errno)
}
