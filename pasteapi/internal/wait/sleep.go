package wait

import (
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// napTime is how long a sleep may last before the Go runtime is told of it. Told of
// each sleep, it would give the processor away and wake its monitor thread to have it
// taken back, every time; a runtime that is not told waits that long to stop the
// world.
const napTime = 4 * time.Millisecond

// alarm ends a sleep that the runtime does not know of. It goes on running while
// there is something to do, and goes off once in napTime then: the timeout of
// epoll_wait would set a timer of the CPU before each sleep and clear it after, which
// on a virtual machine takes some ten microseconds each time, the second of them
// after what was waited for has come.
type alarm struct {
	fd  int
	set bool
}

func (a *alarm) make() (err error) {
	a.fd, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	return os.NewSyscallError("timerfd_create", err)
}

// start has the alarm go off in napTime, unless it goes off before that already.
func (a *alarm) start(c *Counters) error {
	if a.set {
		return nil
	}
	c.Syscalls++
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(napTime))}
	if err := unix.TimerfdSettime(a.fd, 0, &spec, nil); err != nil {
		return os.NewSyscallError("timerfd_settime", err)
	}
	a.set = true
	return nil
}

// sleep waits for events, ms milliseconds at most; negative: without a limit.
func (w *Waiter) sleep(ms int) (int, error) {
	const nap = int(napTime / time.Millisecond)
	if ms >= 0 && ms <= nap {
		return w.poll(ms)
	}
	if err := w.alarm.start(&w.Counters); err != nil {
		return 0, err
	}
	n, err := w.poll(-1)
	if err != nil || n != 1 || Kind(w.raw[0].Pad) != alarmed {
		return n, err
	}
	w.alarm.set = false
	if ms > 0 {
		ms -= nap
	}
	w.Syscalls++
	return unix.EpollWait(w.epoll, w.raw, ms)
}

// poll waits for events in a system call that the Go runtime does not know of.
func (w *Waiter) poll(ms int) (int, error) {
	w.Syscalls++
	if ms != 0 {
		w.Sleeps++
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(w.epoll), uintptr(unsafe.Pointer(&w.raw[0])),
		uintptr(len(w.raw)), uintptr(ms), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
