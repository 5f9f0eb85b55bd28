package ksample

import (
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// A thread that is in one system call all the time is seen in it.
func TestSampler(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, set unix.CPUSet
	qt.Assert(t, qt.IsNil(unix.SchedGetaffinity(0, &old)))
	cpu := 0
	for !old.IsSet(cpu) {
		cpu++
	}
	set.Set(cpu)
	qt.Assert(t, qt.IsNil(unix.SchedSetaffinity(0, &set)))
	defer func() { _ = unix.SchedSetaffinity(0, &old) }()
	symbols, err := ReadSymbols()
	qt.Assert(t, qt.IsNil(err))

	seen, ours, user := 0, 0, 0
	s, err := Start(cpu, func(s *Sample) {
		if s.PID != os.Getpid() {
			return
		}
		ours++
		if s.User {
			user++
		}
		for _, ip := range s.Stack {
			if symbols.Find(ip) == "read_zero" || symbols.Find(ip) == "read_iter_zero" {
				seen++
				break
			}
		}
	})
	qt.Assert(t, qt.IsNil(err))
	zero, err := os.Open("/dev/zero")
	qt.Assert(t, qt.IsNil(err))
	defer zero.Close()
	b := make([]byte, 16<<20)
	var begun, now unix.Timespec
	qt.Assert(t, qt.IsNil(unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &begun)))
	for now.Nano()-begun.Nano() < int64(200*time.Millisecond) {
		_, err = zero.Read(b)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now)))
	}
	qt.Assert(t, qt.IsNil(s.Stop()))
	qt.Check(t, qt.IsTrue(ours > 100), qt.Commentf("%d samples", ours))
	qt.Check(t, qt.IsTrue(seen > ours/2), qt.Commentf("%d of %d", seen, ours))
	qt.Check(t, qt.IsTrue(user < ours/2), qt.Commentf("%d of %d", user, ours))

	_, err = Start(9999, func(*Sample) {})
	qt.Check(t, qt.ErrorMatches(err, "sample CPU 9999: perf_event_open: .*"))
	qt.Check(t, qt.Equals(symbols.Find(1), ""))
}
