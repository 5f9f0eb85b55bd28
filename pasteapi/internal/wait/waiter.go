// Package wait is how a ring sleeps, and what wakes it up.
package wait

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Kind is what an event is about; it travels in the padding of epoll_event,
// which the kernel returns untouched.
type Kind int32

const (
	NIC        Kind = iota // frames, or deliveries: a look at the rings shows them
	User                   // a descriptor of the application's
	Connection             // a registered socket
	wake
	alarmed
	timer
)

// Event is an event of a descriptor.
type Event struct {
	Kind Kind
	FD   int
	Mask uint32 // EPOLLIN, …
}

// Counters count since the ring was opened.
type Counters struct {
	Syscalls uint64
	Sleeps   uint64 // waits that may have slept
}

// Waiter is the epoll of one ring. It belongs to the ring's goroutine, but for
// Wake and Interrupt.
type Waiter struct {
	Counters
	epoll  int
	raw    []unix.EpollEvent
	events []Event
	spin   int64 // nanoseconds; negative: for ever
	alarm  alarm
	napi   napi
	gap    int64 // average of how long waits have taken lately, nanoseconds
	outside

	mu     sync.Mutex // of wakeFD, which any goroutine may write to
	wakeFD int
	woken  atomic.Bool // by Wake, and not only by Nudge
	inPoll atomic.Bool
	ending atomic.Bool
}

// New returns a waiter that spins for as long as spin before it sleeps, and then polls
// the NIC for as long, while that pays; negative: it never sleeps.
func New(spin time.Duration) (_ *Waiter, err error) {
	w := &Waiter{epoll: -1, wakeFD: -1, alarm: alarm{fd: -1}, raw: make([]unix.EpollEvent, 256), spin: int64(spin),
		outside: outside{signalFD: -1, timerFD: -1}}
	w.napi.most = min(max(int64(spin), 0), int64(time.Second))
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create", err)
	}
	if w.wakeFD, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		w.Close()
		return nil, os.NewSyscallError("eventfd", err)
	}
	if err := w.alarm.make(); err != nil {
		w.Close()
		return nil, err
	}
	if err := errors.Join(w.Watch(w.wakeFD, wake), w.control(unix.EPOLL_CTL_ADD, w.alarm.fd, alarmed, unix.EPOLLIN|unix.EPOLLET)); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func (w *Waiter) control(op, fd int, kind Kind, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd), Pad: int32(kind)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(w.epoll, op, fd, &ev))
}

// Watch has Wait return when a descriptor is readable. It is level-triggered.
func (w *Waiter) Watch(fd int, kind Kind) error {
	return w.control(unix.EPOLL_CTL_ADD, fd, kind, unix.EPOLLIN)
}

// connEvents are edge-triggered, and EPOLLIN is not among them: the verdict
// takes bytes away without telling poll.
const connEvents = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR | unix.EPOLLOUT | unix.EPOLLET

// WatchConn has Wait tell of the end of a connection, and of room in a socket
// that was full.
func (w *Waiter) WatchConn(fd int) error {
	return w.control(unix.EPOLL_CTL_ADD, fd, Connection, connEvents)
}

// WantInput has Wait tell of input of a connection, too, or not any more.
func (w *Waiter) WantInput(fd int, yes bool) error {
	events := uint32(connEvents)
	if yes {
		events |= unix.EPOLLIN
	}
	return w.control(unix.EPOLL_CTL_MOD, fd, Connection, events)
}

// datagramEvents are those of a socket of datagrams. EPOLLOUT is not among them: each
// datagram that the network is done with would be such an event, and wake the ring.
const datagramEvents = connEvents&^unix.EPOLLOUT | unix.EPOLLIN

// WatchDatagrams has Wait tell of input of a socket of datagrams, and of its end.
func (w *Waiter) WatchDatagrams(fd int) error {
	return w.control(unix.EPOLL_CTL_ADD, fd, Connection, datagramEvents)
}

// WantRoom has Wait tell of room in such a socket, too, or not any more.
func (w *Waiter) WantRoom(fd int, yes bool) error {
	w.Syscalls++
	events := uint32(datagramEvents)
	if yes {
		events |= unix.EPOLLOUT
	}
	return w.control(unix.EPOLL_CTL_MOD, fd, Connection, events)
}

// Unwatch ends Watch, WatchConn and WatchDatagrams.
func (w *Waiter) Unwatch(fd int) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, fd, nil))
}

// Wait waits for events, ms milliseconds at most; 0 does not wait, -1 has no
// limit. An interrupting signal counts as no event. woken says whether Wake was
// called. Events are valid until the next call.
func (w *Waiter) Wait(ms int) (events []Event, woken bool, err error) {
	n, err := w.sleep(ms)
	if err != nil && err != unix.EINTR {
		return nil, false, os.NewSyscallError("epoll_wait", err)
	}
	w.events = w.events[:0]
	for i := range w.raw[:max(n, 0)] {
		ev := &w.raw[i]
		switch Kind(ev.Pad) {
		case wake:
			w.empty(w.wakeFD)
			woken = w.woken.Swap(false)
		case alarmed:
			w.alarm.set = false
		case timer:
			w.empty(w.timerFD)
			w.due = 0
		case NIC:
		default:
			w.events = append(w.events, Event{Kind(ev.Pad), int(ev.Fd), ev.Events})
		}
	}
	return w.events, woken, nil
}

// empty makes an eventfd or a timer unreadable.
func (w *Waiter) empty(fd int) {
	var b [8]byte
	w.Syscalls++
	_, _ = unix.Read(fd, b[:])
}

// Wake makes the current or the next Wait return. It may be called from any
// goroutine, and does nothing after Close.
func (w *Waiter) Wake() {
	w.woken.Store(true)
	w.Nudge()
}

// Nudge makes the current or the next Wait return, but not say that Wake was
// called. It may be called from any goroutine, and does nothing after Close.
func (w *Waiter) Nudge() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wakeFD < 0 {
		return
	}
	one := uint64(1)
	b := (*[8]byte)(unsafe.Pointer(&one))
	// It can only fail when the counter is full; then Wait returns anyhow.
	_, _ = unix.Write(w.wakeFD, b[:])
}

// Enter is called when the ring may wait from now on, Leave when it does not any
// more. Enter fails after Interrupt.
func (w *Waiter) Enter() bool {
	w.inPoll.Store(true)
	if w.ending.Load() {
		w.inPoll.Store(false)
		return false
	}
	return true
}

// Entered says whether the ring is between Enter and Leave.
func (w *Waiter) Entered() bool { return w.inPoll.Load() }

// Leave ends Enter.
func (w *Waiter) Leave() { w.inPoll.Store(false) }

// Ending says whether Interrupt was called.
func (w *Waiter) Ending() bool { return w.ending.Load() }

// Interrupt has a ring that waits in another goroutine leave, and never enter
// again.
func (w *Waiter) Interrupt() {
	w.ending.Store(true)
	for w.inPoll.Load() {
		w.Wake()
		time.Sleep(time.Millisecond)
	}
}

// Close releases the descriptors. It may be called twice.
func (w *Waiter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var err error
	for _, fd := range []*int{&w.epoll, &w.wakeFD, &w.alarm.fd, &w.signalFD, &w.timerFD} {
		if *fd >= 0 {
			if e := unix.Close(*fd); err == nil {
				err = os.NewSyscallError("close", e)
			}
			*fd = -1
		}
	}
	return err
}
