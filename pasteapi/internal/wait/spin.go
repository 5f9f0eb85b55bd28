package wait

import (
	"time"

	"golang.org/x/sys/unix"
)

// Source can be looked at without a system call.
type Source interface {
	// Pending says whether there may be something.
	Pending() bool
}

// Outcome is why Spin has returned.
type Outcome uint8

const (
	Over  Outcome = iota // the time is over
	Found                // the source has something
	Look                 // events should be looked at: Wake, listeners, closed connections
)

const (
	// yieldEvery is how often a spinning ring lets others have its CPU,
	// nanoseconds. What it waits for may need it: the NIC's NAPI thread, for one.
	yieldEvery = 20_000
	// lookEvery is after how many looks at the source the events are due.
	lookEvery = 4096
)

// Spinning is one wait by looking, across several calls of Spin.
type Spinning struct {
	start, yielded int64
	looks          uint32
}

// Start begins to wait, now.
func Start() Spinning { return Spinning{start: Now()} }

// Elapsed is the time since Start.
func (s *Spinning) Elapsed() time.Duration { return time.Duration(Now() - s.start) }

// Spin looks at a source until it has something, the waiter's time to spin or
// the timeout (negative: none) is over, or events should be looked at.
func (w *Waiter) Spin(s *Spinning, src Source, timeout time.Duration) Outcome {
	if !w.pays() {
		return Over
	}
	for {
		s.looks++
		if s.looks&31 == 0 {
			if w.over(s, timeout) {
				return Over
			}
			if s.looks%lookEvery == 0 {
				return Look
			}
		}
		if src.Pending() {
			return Found
		}
	}
}

// pays says whether what is waited for has come soon enough lately: within the time
// that may be spent. To look for it costs the CPU as long as the wait, to
// sleep about as much as to be woken up, some ten microseconds.
func (w *Waiter) pays() bool { return w.spin < 0 || w.gap < w.spin }

// Came notes that a wait has brought something.
func (w *Waiter) Came(s *Spinning) {
	const weight = 8
	w.gap += (min(Now()-s.start, gapMost) - w.gap) / weight
}

// gapMost is what a wait counts as at the most, nanoseconds, so that a long one is
// soon forgotten.
const gapMost = 1_000_000

// over says whether the time to spin is over.
func (w *Waiter) over(s *Spinning, timeout time.Duration) bool {
	spent := Now() - s.start
	if w.spin >= 0 && spent-s.yielded >= yieldEvery {
		s.yielded = spent
		w.Syscalls++
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
	return w.spin >= 0 && spent >= w.spin || timeout >= 0 && spent >= int64(timeout)
}

var base = time.Now()

// Now is a monotonic clock, nanoseconds.
func Now() int64 { return int64(time.Since(base)) }
