package netmap

import (
	"fmt"
	"os"
	"time"

	"github.com/pastenet/paste/netmap/portspec"
	"golang.org/x/sys/unix"
)

// Events that Poll waits for.
type Events int

const (
	// In: an RX ring has slots from Cur on.
	In Events = unix.POLLIN
	// Out: a TX ring has.
	Out Events = unix.POLLOUT
)

// Fd is a descriptor for anybody's poll, select or epoll: it is readable while
// frames wait, in the kernel or in slots from Cur on. It stays the port's. Call
// RxSync, or Poll, when it is.
func (p *Port) Fd() int { return p.epfd }

// Wake makes the current or the next Poll return.
func (p *Port) Wake() { _, _ = unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// openWait makes the descriptors that Poll sleeps on.
func (p *Port) openWait() (err error) {
	p.epfd, p.wake, p.leftFd = -1, -1, -1
	p.atEnd(func() (err error) {
		for _, fd := range []int{p.epfd, p.wake, p.leftFd} {
			if fd >= 0 {
				err = os.NewSyscallError("close", unix.Close(fd))
			}
		}
		return err
	})
	if p.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	fds := []int{}
	for _, fd := range []*int{&p.wake, &p.leftFd} {
		if *fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
			return os.NewSyscallError("eventfd", err)
		}
		fds = append(fds, *fd)
	}
	for _, r := range p.rx {
		if fd := r.from.fd(); fd >= 0 {
			fds = append(fds, fd)
		}
	}
	for _, fd := range fds {
		ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
		if err := unix.EpollCtl(p.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
			return os.NewSyscallError("epoll_ctl", err)
		}
	}
	return nil
}

// Poll is netmap's poll: it pushes what is to be sent, takes in what was received,
// and waits until one of the events holds, or the time is over. It says which hold.
// Timeout 0 does not wait, a negative one has no limit. With portspec.NoTxPoll
// nothing is pushed unless Out is waited for; with DoRxPoll frames are taken in even
// when In is not. Wake ends it with no event.
func (p *Port) Poll(events Events, timeout time.Duration) (got Events, err error) {
	var until time.Time
	if timeout > 0 {
		until = time.Now().Add(timeout)
	}
	spinning := p.opts.Spin
	var begun time.Time
	for {
		if got, err = p.look(events); got != 0 || err != nil || timeout == 0 {
			return got, err
		}
		now := time.Time{}
		if timeout > 0 || spinning > 0 {
			now = time.Now()
		}
		if timeout > 0 && !now.Before(until) {
			return 0, nil
		}
		if spinning > 0 && begun.IsZero() {
			begun = now
		}
		if spinning < 0 || spinning > 0 && now.Sub(begun) < spinning {
			if p.spinEnds() {
				return 0, nil
			}
			continue
		}
		left := time.Duration(-1)
		if timeout > 0 {
			left = until.Sub(now)
		}
		if woken, err := p.sleep(events, left); woken || err != nil {
			return 0, err
		}
	}
}

// look syncs, and says which events hold.
func (p *Port) look(events Events) (got Events, err error) {
	if p.closed {
		return 0, ErrClosed
	}
	if events&Out != 0 || p.spec.Flags&portspec.NoTxPoll == 0 && p.unsynced() {
		err = p.TxSync()
	}
	if events&In != 0 || p.spec.Flags&portspec.DoRxPoll != 0 {
		if e := p.RxSync(); err == nil {
			err = e
		}
	}
	for i := range p.rx {
		if events&In != 0 && p.rx[i].waiting() {
			got |= In
			break
		}
	}
	for i := range p.tx {
		if events&Out != 0 && p.tx[i].waiting() {
			got |= Out
			break
		}
	}
	return got, err
}

// unsynced says whether a TX ring has something to push.
func (p *Port) unsynced() bool {
	for i := range p.tx {
		if r := &p.tx[i]; r.n.Head != r.head || r.to.unsent(r.ring) {
			return true
		}
	}
	return false
}

// txStep is how long Poll sleeps at most while slots wait to be taken: nobody tells
// when the device has sent one.
const txStep = 100 * time.Microsecond

func (p *Port) spinEnds() bool {
	var b [8]byte
	n, _ := unix.Read(p.wake, b[:])
	return n == 8
}

// sleep waits for frames, or for a moment if it waits for room.
func (p *Port) sleep(events Events, left time.Duration) (woken bool, err error) {
	if events&Out != 0 || p.unsynced() {
		if left < 0 || left > txStep {
			left = txStep
		}
	}
	if left < 0 || left > lookStep {
		left = lookStep
	}
	ts := unix.NsecToTimespec(int64(left))
	fds := []unix.PollFd{{Fd: int32(p.wake), Events: unix.POLLIN}}
	if events&In != 0 || p.spec.Flags&portspec.DoRxPoll != 0 {
		fds = append(fds, unix.PollFd{Fd: int32(p.epfd), Events: unix.POLLIN})
	}
	if _, err := unix.Ppoll(fds, &ts, nil); err != nil && err != unix.EINTR {
		return false, p.wrap("wait", os.NewSyscallError("ppoll", err))
	}
	if fds[0].Revents != 0 {
		return p.spinEnds(), nil
	}
	return false, p.alive()
}

// lookStep is how often Poll looks whether the NIC is still there: a socket whose
// device has gone keeps silent.
const lookStep = time.Second

// alive is the error of a NIC that is gone, for good.
func (p *Port) alive() error {
	now := time.Now()
	if p.gone == nil && now.Sub(p.looked) < lookStep {
		return nil
	}
	p.looked = now
	for i := 0; p.gone == nil && i < len(p.rx); i++ {
		q, ok := p.rx[i].from.(*rxQueue)
		if !ok {
			continue
		}
		if e, err := unix.GetsockoptInt(q.fd(), unix.SOL_SOCKET, unix.SO_ERROR); err == nil && e != 0 {
			p.gone = p.wrap("wait", fmt.Errorf("queue %d: %w: %w", q.id, ErrDown, unix.Errno(e)))
		}
	}
	return p.gone
}
