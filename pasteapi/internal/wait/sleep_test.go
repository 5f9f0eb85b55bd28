package wait

import (
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// TestSleepLength: a sleep ends when its time is over, not before, whether it is
// shorter or longer than a nap, and whether the alarm is set already.
func TestSleepLength(t *testing.T) {
	w := newWaiter(t, 0)
	for _, ms := range []int{1, 4, 5, 30, 30} {
		start := time.Now()
		for time.Since(start) < time.Duration(ms)*time.Millisecond {
			events, woken, err := w.Wait(ms)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.HasLen(events, 0))
			qt.Assert(t, qt.IsFalse(woken))
		}
		w.Wake() // a sleep that ends early leaves the alarm set
		_, woken, err := w.Wait(1000)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsTrue(woken))
	}
}

// TestSleepSetsNoTimer: of many short sleeps in a row only one in napTime sets a timer.
func TestSleepSetsNoTimer(t *testing.T) {
	w := newWaiter(t, 0)
	const sleeps = 2000
	start := time.Now()
	for range sleeps {
		w.Wake()
		_, woken, err := w.Wait(-1)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsTrue(woken))
	}
	timers := int(w.Syscalls) - 2*sleeps // a sleep, and a read of what wakes
	most := int(time.Since(start)/napTime) + 1
	qt.Check(t, qt.IsTrue(timers >= 1 && timers <= most), qt.Commentf("%d timers in %v", timers, time.Since(start)))
}

// TestSleepLetsTheRuntimeStop: a ring that sleeps for long does not keep the Go
// runtime from stopping the world, nor others from running.
func TestSleepLetsTheRuntimeStop(t *testing.T) {
	w := newWaiter(t, 0)
	r, s, err := os.Pipe()
	qt.Assert(t, qt.IsNil(err))
	defer r.Close()
	defer s.Close()
	qt.Assert(t, qt.IsNil(w.Watch(int(r.Fd()), User)))
	done := make(chan []Event)
	go func() {
		for { // the runtime's signals interrupt it
			if events, _, err := w.Wait(-1); len(events) > 0 || err != nil {
				done <- events
				return
			}
		}
	}()
	for range 3 {
		runtime.GC() // would wait for the event, which comes only afterwards
	}
	_, err = s.Write([]byte("x"))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(<-done, 1))
}
