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

// napi is how a waiter polls the NIC when it begins to sleep, instead of waiting for
// its interrupt, while that pays.
type napi struct {
	most   int64 // nanoseconds that it may take; 0: it does not poll
	on     bool
	sleeps int // since it was switched off
}

const (
	// tryAfter is after how many sleeps a waiter tries whether polling pays, if they
	// were shorter than tryBelow nanoseconds: they are longer without.
	tryAfter = 64
	tryBelow = 100_000
)

// PollNAPI has each sleep begin with polling, for so long, the NIC queue from which
// the descriptors that are watched receive, and the NIC's interrupts stay off while
// that goes on.
func (w *Waiter) PollNAPI(d time.Duration) error {
	w.napi = napi{}
	return w.setNAPI(d)
}

func (w *Waiter) setNAPI(d time.Duration) error {
	p := epollParams{busyPollUsecs: uint32(d.Microseconds()), busyPollBudget: napiBudget, preferBusyPoll: 1}
	w.Syscalls++
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

// Adapt switches polling on and off before a sleep, by what it has brought lately: what comes within
// the time that may be spent comes without an interrupt and a change of threads, which
// cost about as much CPU, and sooner. reading says whether what is waited for shows in
// events only: where deliveries come by themselves, in large batches, to poll for more of
// them costs more than it saves. A kernel that cannot is not asked again.
func (w *Waiter) Adapt(reading bool) {
	n := &w.napi
	switch {
	case n.most == 0:
		return
	case n.on && (w.gap >= n.most || !reading):
		n.on, n.sleeps = false, 0
	case !n.on && reading && w.gap < tryBelow:
		if n.sleeps++; n.sleeps < tryAfter {
			return
		}
		n.on = true
		w.gap = n.most / 2 // what sleeps took without polling says nothing of those with
	default:
		return
	}
	most := int64(0)
	if n.on {
		most = n.most
	}
	if w.setNAPI(time.Duration(most)) != nil {
		w.napi = napi{}
	}
}
