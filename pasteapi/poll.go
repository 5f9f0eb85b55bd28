package pasteapi

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What an epoll event is about; in the padding of epoll_event, which the
// kernel returns untouched.
const (
	watchNIC = iota
	watchDeliveries
	watchWake
	watchUser
	watchConn
)

// checkEvery is how many busy Polls may pass without a look at the events
// (closed connections, listeners): each look is a system call.
const checkEvery = 8

func (r *Ring) makeEvents() (err error) {
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create", err)
	}
	if r.wakeFd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	if err := r.watch(r.wakeFd, watchWake); err != nil {
		return err
	}
	return r.watch(r.tk.PollFd(), watchDeliveries)
}

func (r *Ring) watch(fd, kind int) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd), Pad: int32(kind)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, fd, &ev))
}

// Watch makes Poll return when a descriptor of the application's is readable,
// a listener for example. It is level-triggered. Ready tells which.
func (r *Ring) Watch(fd int) error {
	if r.closed {
		return ErrClosed
	}
	if err := r.watch(fd, watchUser); err != nil {
		return fmt.Errorf("watch fd %d: %w", fd, err)
	}
	return nil
}

// Unwatch ends Watch.
func (r *Ring) Unwatch(fd int) error {
	if r.closed {
		return ErrClosed
	}
	if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_DEL, fd, nil); err != nil {
		return fmt.Errorf("unwatch fd %d: %w", fd, os.NewSyscallError("epoll_ctl", err))
	}
	return nil
}

// Ready lists the watched descriptors that the last Poll found readable. It is
// valid until the next Poll.
func (r *Ring) Ready() []int { return r.ready }

// Wake makes the current or the next Poll return. It may be called from any
// goroutine, and does nothing after Close. For a Poll that is to end with a
// context: stop := context.AfterFunc(ctx, ring.Wake).
func (r *Ring) Wake() {
	r.wakeMu.Lock()
	defer r.wakeMu.Unlock()
	if r.wakeFd < 0 {
		return
	}
	one := uint64(1)
	b := (*[8]byte)(unsafe.Pointer(&one))
	// It can only fail when the counter is full; then Poll wakes anyhow.
	_, _ = unix.Write(r.wakeFd, b[:])
}

// interrupt ends a Poll that waits in another goroutine, and all that follow.
func (r *Ring) interrupt() {
	r.ending.Store(true)
	for r.inPoll.Load() {
		r.Wake()
		time.Sleep(time.Millisecond)
	}
}

// Poll sends what is in the TX ring, then waits until there are slots in the
// RX ring, a watched descriptor is readable, Wake was called, or the timeout
// has passed (negative: no limit; 0: does not wait, which is busy polling). It
// returns the number of RX slots that the application owns.
//
// Errors: ErrClosed, also when the port is closed while Poll waits;
// ErrRingCorrupt when the application broke the rules of one ring or of both
// (then the error wraps a RingError for each). Both rings are usable again then,
// but the slots of a broken one stand as after the last sync: received ones that
// the application had done with are there once more, and what it had written
// into TX slots is not sent, as a rule. Anything else is a system call that
// failed in a way that does not pass.
func (r *Ring) Poll(timeout time.Duration) (int, error) {
	r.inPoll.Store(true)
	defer r.inPoll.Store(false)
	if r.ending.Load() {
		return 0, ErrClosed
	}
	r.ready = r.ready[:0]
	txErr := r.TxSync()
	if txErr != nil && !errors.Is(txErr, ErrRingCorrupt) {
		return 0, txErr
	}
	n, err := r.RxSync()
	if txErr != nil || err != nil {
		return n, errors.Join(txErr, err)
	}
	r.checks++
	if n > 0 || timeout == 0 {
		if r.checks < checkEvery {
			return n, nil
		}
		if _, err := r.look(0); err != nil {
			return 0, err
		}
		return r.RxSync()
	}
	return r.sleep(timeout)
}

// sleep spins for a while and then waits in epoll.
func (r *Ring) sleep(timeout time.Duration) (int, error) {
	start := nanotime()
	for {
		if r.spin != 0 {
			n, woken, err := r.spinUntil(start, timeout)
			if r.ending.Load() {
				return 0, ErrClosed
			}
			if n > 0 || woken || err != nil || len(r.ready) > 0 {
				return n, err
			}
		}
		wait := time.Duration(-1)
		if timeout >= 0 {
			wait = max(timeout-time.Duration(nanotime()-start), 0)
		}
		woken, err := r.look(wait)
		if err != nil {
			return 0, err
		}
		if r.ending.Load() {
			return 0, ErrClosed
		}
		n, err := r.RxSync()
		if n > 0 || err != nil || woken || len(r.ready) > 0 {
			return n, err
		}
		if timeout >= 0 && time.Duration(nanotime()-start) >= timeout {
			return 0, nil
		}
	}
}

// yieldEvery is how often a spinning ring lets others have its CPU, nanoseconds.
// What it waits for may need it: the NIC's NAPI thread, for one.
const yieldEvery = 20_000

// spinUntil looks at the rings, which costs no system call, until something is
// there, Wake was called or the time to spin is over.
func (r *Ring) spinUntil(start int64, timeout time.Duration) (n int, woken bool, err error) {
	limit, yielded := r.spin, int64(0)
	for i := 1; ; i++ {
		if r.anything() {
			if n, err = r.RxSync(); n > 0 || err != nil {
				return n, false, err
			}
		}
		if i&31 != 0 {
			continue
		}
		spent := nanotime() - start
		if spent-yielded >= yieldEvery && limit >= 0 {
			yielded = spent
			r.stats.Syscalls++
			_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		}
		if limit >= 0 && spent >= limit || timeout >= 0 && spent >= int64(timeout) {
			return 0, false, nil
		}
		if i&4095 == 0 {
			if woken, err = r.look(0); woken || err != nil || len(r.ready) > 0 {
				n, rxErr := r.RxSync()
				return n, woken, errors.Join(err, rxErr)
			}
		}
	}
}

// anything says whether a sync may find something, without a system call.
func (r *Ring) anything() bool {
	if r.tk.Pending() || len(r.active) > 0 || len(r.waiting) > 0 {
		return true
	}
	for _, s := range r.nics {
		if s.RxPending() {
			return true
		}
	}
	return false
}

// look waits for events and handles them. The result says whether Wake was
// called.
func (r *Ring) look(wait time.Duration) (woken bool, err error) {
	r.checks = 0
	if now := nanotime(); now-r.lastTick > int64(time.Second) {
		r.lastTick = now
		r.sweep()
	}
	ms := -1
	if wait >= 0 {
		ms = int((wait + time.Millisecond - 1) / time.Millisecond)
	}
	if len(r.waiting)+len(r.hungup) > 0 && (ms < 0 || ms > 1) {
		ms = 1 // the kernel queues stray bytes from a work queue when it is busy
	} else if r.starved && (ms < 0 || ms > 10) {
		ms = 10 // the NIC has no frames to receive into, so it cannot wake anybody
	} else if ms < 0 || ms > 1000 {
		ms = 1000 // the sweep has to run
	}
	n := 0
	r.stats.Syscalls++
	r.publish()
	if ms == 0 {
		got, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(r.epoll), uintptr(unsafe.Pointer(&r.events[0])),
			uintptr(len(r.events)), 0, 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return false, os.NewSyscallError("epoll_wait", errno)
		}
		if errno == 0 {
			n = int(got)
		}
	} else {
		r.tk.Sleeping(true)
		if r.anything() && len(r.waiting) == 0 {
			ms = 0
		}
		r.stats.Sleeps++
		n, err = r.wait(ms)
		r.tk.Sleeping(false)
		if err != nil && err != unix.EINTR {
			return false, os.NewSyscallError("epoll_wait", err)
		}
		err = nil
	}
	for i := range max(n, 0) {
		woken = r.handle(&r.events[i]) || woken
	}
	r.checkEnds()
	if len(r.closing) > 0 {
		err = r.closeSent()
	}
	return woken, err
}

// wait sleeps for events. Under load it does not sleep for long, and the first
// millisecond is spent in a system call that the Go runtime does not know of:
// told of each sleep, it would give the processor away and wake its monitor
// thread to have it taken back, every time.
func (r *Ring) wait(ms int) (int, error) {
	if ms != 0 {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(r.epoll), uintptr(unsafe.Pointer(&r.events[0])),
			uintptr(len(r.events)), 1, 0, 0)
		if errno != 0 {
			return 0, errno
		}
		if n > 0 || ms == 1 {
			return int(n), nil
		}
		r.stats.Syscalls++
		if ms > 0 {
			ms--
		}
	}
	return unix.EpollWait(r.epoll, r.events, ms)
}

func (r *Ring) handle(ev *unix.EpollEvent) (woken bool) {
	switch ev.Pad {
	case watchWake:
		var b [8]byte
		_, _ = unix.Read(r.wakeFd, b[:])
		r.stats.Syscalls++
		return true
	case watchUser:
		r.ready = append(r.ready, int(ev.Fd))
	case watchConn:
		c := r.lookup(int(ev.Fd))
		if c == nil {
			return false
		}
		if ev.Events&unix.EPOLLOUT != 0 && len(c.queue) > 0 {
			r.sendQueued(c)
		}
		if ev.Events&unix.EPOLLIN != 0 && c.copyOnly && !c.eof {
			r.push(c, item{kind: itemAll})
			r.activate(c)
		}
		if ev.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 && !c.eof {
			r.hungup = append(r.hungup, c)
		}
	}
	return false
}

// checkEnds finds out how connections ended about which there was an event.
// While bytes are ahead of the end it waits for them.
func (r *Ring) checkEnds() {
	if len(r.hungup) == 0 {
		return
	}
	later := r.hungup[:0]
	for _, c := range r.hungup {
		if c.fd < 0 || c.eof {
			continue
		}
		known := r.peek(c)
		if !c.eof && (!known || c.pending()) {
			later = append(later, c)
		}
	}
	clear(r.hungup[len(later):])
	r.hungup = later
}

var base = time.Now()

func nanotime() int64 { return int64(time.Since(base)) }
