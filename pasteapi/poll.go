package pasteapi

import (
	"errors"
	"time"

	"github.com/pastenet/paste/pasteapi/internal/wait"
	"golang.org/x/sys/unix"
)

// checkEvery is how many busy Polls may pass without a look at the events
// (closed connections, listeners): each look is a system call.
const checkEvery = 8

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
//
// Poll and the application read the pool's memory. Where others can truncate its
// file, the loop around Poll belongs under pmem.Pool.Guard, which makes an error of
// what would end the process; close the port after it.
func (r *Ring) Poll(timeout time.Duration) (int, error) {
	if !r.wait.Enter() {
		return 0, ErrClosed
	}
	defer r.wait.Leave()
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
		if r.checks < checkEvery && !r.in.Reading() {
			return n, nil
		}
		if _, err := r.look(0); err != nil {
			return 0, err
		}
		return r.RxSync()
	}
	return r.sleep(timeout)
}

// sleep spins for a while and then waits for events.
func (r *Ring) sleep(timeout time.Duration) (int, error) {
	spinning := wait.Start()
	for {
		block := time.Duration(-1)
		if timeout >= 0 {
			block = max(timeout-spinning.Elapsed(), 0)
		}
		outcome := wait.Over
		if !r.in.Reading() {
			outcome = r.wait.Spin(&spinning, r.in, timeout)
		}
		if r.wait.Ending() {
			return 0, ErrClosed
		}
		woken := false
		if outcome != wait.Found {
			if outcome == wait.Look {
				block = 0
			}
			var err error
			if woken, err = r.look(block); err != nil {
				return 0, err
			}
			if r.wait.Ending() {
				return 0, ErrClosed
			}
		}
		n, err := r.RxSync()
		if n > 0 {
			r.wait.Came(&spinning)
		}
		if n > 0 || err != nil || woken || len(r.ready) > 0 {
			return n, err
		}
		if timeout >= 0 && spinning.Elapsed() >= timeout {
			return 0, nil
		}
	}
}

// look waits for events, not at all if block is 0, and handles them. The result
// says whether Wake was called.
func (r *Ring) look(block time.Duration) (woken bool, err error) {
	r.checks = 0
	r.work()
	if now := wait.Now(); now-r.lastTick > int64(time.Second) {
		r.lastTick = now
		r.sweep()
	}
	r.publish()
	ms := r.limit(block)
	sleeps := ms != 0
	if sleeps {
		r.in.Sleeping(true)
		if r.in.Pending() {
			ms = 0
		}
	}
	events, woken, err := r.wait.Wait(ms)
	if sleeps {
		r.in.Sleeping(false)
	}
	if err != nil {
		return false, err
	}
	for i := range events {
		r.handle(&events[i])
	}
	r.settle()
	r.in.CheckEnds()
	return woken, r.closeSent()
}

// limit is how many milliseconds a look may wait.
func (r *Ring) limit(block time.Duration) int {
	most := 1000 // the sweep has to run
	if r.in.Waiting() {
		most = 1 // the kernel queues bytes from a work queue when it is busy
	} else if r.in.Starved() {
		most = 10 // the NIC has no frames to receive into, so it cannot wake anybody
	}
	if block >= 0 {
		most = int(min((block+time.Millisecond-1)/time.Millisecond, time.Duration(most)))
	}
	return most
}

func (r *Ring) handle(ev *wait.Event) {
	if ev.Kind == wait.User {
		r.ready = append(r.ready, ev.FD)
		return
	}
	c := r.conns.Find(ev.FD)
	if c == nil {
		return
	}
	if ev.Mask&unix.EPOLLOUT != 0 {
		r.out.Resume(&c.out)
	}
	r.hasRoom(c, ev.Mask)
	if ev.Mask&unix.EPOLLIN != 0 {
		r.in.Input(&c.in)
	}
	if ev.Mask&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		r.in.HungUp(&c.in)
	}
}
