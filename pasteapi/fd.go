package pasteapi

import (
	"fmt"
	"math"
	"time"
)

// Fd returns a descriptor for the application's own poll, select or epoll, in place
// of a Poll that waits. It is readable (POLLIN) while there are slots in the RX ring
// or Poll would find some, while a watched descriptor is readable, and after Wake.
// Whoever sees it readable calls Poll(0), which never waits, and handles what it
// brings:
//
//	for {
//		unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
//		_, err := ring.Poll(0)
//		…
//		for seg := range ring.Segments() {
//			…
//		}
//	}
//
// It stays readable until a Poll has found nothing: slots that the application has
// taken from the RX ring show only then. So there is one Poll in vain when the last slots are
// done with, and none while nothing arrives. What is put into the TX ring is sent by
// Poll or TxSync, never by a wait for the descriptor; there is always room again after
// them, so it is never waited for.
//
// The descriptor is the ring's, and closed with it. Nothing may be read from it,
// written to it or added to it. From the first call of Fd on, each Poll looks at
// events.
func (r *Ring) Fd() (int, error) {
	fd, err := r.EdgeFd()
	if err == nil {
		r.wait.Level = true
	}
	return fd, err
}

// EdgeFd is Fd for who calls Poll(0) until it brings nothing, each time and before
// the first wait; as one has to who waits edge-triggered, which Go's own poller does. Slots
// that Poll has brought do not make the descriptor readable then, which saves a call of Poll for each
// burst. After Fd, EdgeFd is the same as Fd.
func (r *Ring) EdgeFd() (int, error) {
	if r.closed {
		return -1, ErrClosed
	}
	fd, err := r.wait.Outside()
	if err != nil {
		return -1, fmt.Errorf("make a descriptor of the ring: %w", err)
	}
	r.wait.Show() // the next Poll finds out
	return fd, nil
}

// expose makes the descriptor of Fd readable if it has to be although no event says
// so, now or soon.
func (r *Ring) expose() {
	if r.closed || !r.wait.IsOutside() {
		return
	}
	if v := &r.pair.rx; v.tail != v.head {
		if r.wait.Level && !r.wait.Shown() {
			r.wait.Show()
		}
	} else {
		r.in.Sleeping(true) // the next delivery makes an event
		if r.in.Pending() || r.udp.in.Pending() {
			r.wait.Show() // also for those who have been told, and Poll has brought nothing
		} else {
			r.wait.Hide()
		}
	}
	if soon := r.soon(); soon < never {
		r.wait.Remind(soon)
	}
}

const never = time.Duration(math.MaxInt64)

// soon is when the ring has to look again although no event comes.
func (r *Ring) soon() time.Duration {
	switch {
	case r.in.Waiting():
		return time.Millisecond // the kernel queues bytes from a work queue when it is busy
	case r.in.Starved():
		return 10 * time.Millisecond // the NIC has no frames to receive into, so it cannot wake anybody
	case r.in.InFlight() || r.out.Blocked() || r.udp.out.Blocked() || r.unreported():
		return time.Second // the sweep has to run
	}
	return never
}

// unreported says whether there is something to tell the log.
func (r *Ring) unreported() bool {
	in, last := &r.in.Counters, &r.reported
	return r.frames.Empty != last.NoFrames || in.InjectFailed != last.InjectFailed || in.Overflowed != last.Overflowed
}
