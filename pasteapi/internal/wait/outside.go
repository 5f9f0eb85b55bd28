package wait

import (
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// outside is what makes the epoll a descriptor that others can wait for. Without
// it, only Wait knows of what lies in memory, and of what has to be done in time.
type outside struct {
	signalFD int // eventfd: something lies in memory
	timerFD  int
	shown    bool  // signalFD is readable
	Level    bool  // somebody looks at the descriptor without a Wait that found nothing before
	due      int64 // when the timer fires, as Now has it; 0: it does not
}

// Outside returns a descriptor that is readable while Wait has something to tell,
// Show says so, or the time of Remind has come. It is the waiter's.
func (w *Waiter) Outside() (fd int, err error) {
	if w.IsOutside() {
		return w.epoll, nil
	}
	defer func() {
		if err != nil {
			_, _ = unix.Close(w.signalFD), unix.Close(w.timerFD)
			w.signalFD, w.timerFD = -1, -1
		}
	}()
	if w.signalFD, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return -1, os.NewSyscallError("eventfd", err)
	}
	if w.timerFD, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return -1, os.NewSyscallError("timerfd_create", err)
	}
	if err := w.Watch(w.signalFD, NIC); err != nil {
		return -1, err
	}
	if err := w.Watch(w.timerFD, timer); err != nil {
		return -1, err
	}
	return w.epoll, nil
}

// IsOutside says whether Outside was called.
func (w *Waiter) IsOutside() bool { return w.signalFD >= 0 }

// Show has the descriptor of Outside be readable until Hide, whatever else there is
// to tell, and whoever waits for it edge-triggered learn of it again.
func (w *Waiter) Show() {
	w.shown = true
	w.Syscalls++
	one := uint64(1)
	_, _ = unix.Write(w.signalFD, (*[8]byte)(unsafe.Pointer(&one))[:])
}

// Shown says whether Show was called, and not Hide.
func (w *Waiter) Shown() bool { return w.shown }

// Hide ends Show.
func (w *Waiter) Hide() {
	if w.shown {
		w.shown = false
		w.empty(w.signalFD)
	}
}

// Remind has the descriptor of Outside be readable some time from now on, or
// earlier. The next Wait after that forgets it.
func (w *Waiter) Remind(in time.Duration) {
	at := Now() + int64(in)
	if w.due != 0 && w.due <= at {
		return
	}
	w.due = at
	w.Syscalls++
	_ = unix.TimerfdSettime(w.timerFD, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(in))}, nil)
}
