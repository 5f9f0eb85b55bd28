package wait

import (
	"os"
	"testing"
	"time"
	"unsafe"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/testkernel"
	"golang.org/x/sys/unix"
)

func newWaiter(t *testing.T, spin time.Duration) *Waiter {
	t.Helper()
	w, err := New(spin)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(w.Close())) })
	return w
}

// TestWake: Wake ends a wait of any length, also one that begins after it, once.
func TestWake(t *testing.T) {
	w := newWaiter(t, 0)
	w.Wake()
	_, woken, err := w.Wait(-1)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(woken))
	_, woken, err = w.Wait(0)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsFalse(woken))
	go func() {
		time.Sleep(10 * time.Millisecond)
		w.Wake()
	}()
	_, woken, err = w.Wait(-1)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(woken))
}

// TestKinds: an event says what its descriptor was watched for.
func TestKinds(t *testing.T) {
	w := newWaiter(t, 0)
	r, s, err := os.Pipe()
	qt.Assert(t, qt.IsNil(err))
	defer r.Close()
	defer s.Close()
	qt.Assert(t, qt.IsNil(w.Watch(int(r.Fd()), User)))
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	qt.Assert(t, qt.IsNil(err))
	defer unix.Close(pair[0])
	qt.Assert(t, qt.IsNil(w.WatchConn(pair[0])))
	events, _, err := w.Wait(-1) // the socket has room
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(events, 1))
	qt.Check(t, qt.Equals(events[0], Event{Connection, pair[0], unix.EPOLLOUT}))

	_, err = unix.Write(pair[1], []byte("input"))
	qt.Assert(t, qt.IsNil(err))
	for { // the socket's input is not wanted, at most its room is told once more
		events, _, err = w.Wait(0)
		qt.Assert(t, qt.IsNil(err))
		if len(events) == 0 {
			break
		}
		qt.Assert(t, qt.Equals(events[0].Mask&unix.EPOLLIN, 0))
	}
	qt.Assert(t, qt.IsNil(w.WantInput(pair[0], true)))
	events, _, err = w.Wait(-1)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(events[0].Mask&unix.EPOLLIN, unix.EPOLLIN))

	_, err = s.Write([]byte("x"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(unix.Close(pair[1])))
	events, _, err = w.Wait(-1)
	qt.Assert(t, qt.IsNil(err))
	seen := map[Kind]uint32{}
	for _, e := range events {
		seen[e.Kind] |= e.Mask
	}
	qt.Check(t, qt.Equals(seen[User], unix.EPOLLIN))
	qt.Check(t, qt.IsTrue(seen[Connection]&unix.EPOLLRDHUP != 0), qt.Commentf("%x", seen))
}

// TestInterrupt: a ring that waits leaves, and cannot enter again.
func TestInterrupt(t *testing.T) {
	w := newWaiter(t, 0)
	left := make(chan struct{})
	qt.Assert(t, qt.IsTrue(w.Enter()))
	go func() {
		defer close(left)
		defer w.Leave()
		for !w.Ending() {
			_, _, _ = w.Wait(-1)
		}
	}()
	w.Interrupt()
	<-left
	qt.Check(t, qt.IsFalse(w.Enter()))
	qt.Check(t, qt.IsFalse(w.Entered()))
}

const getParams = 0x80088a02 // EPIOCGPARAMS

type source func() bool

func (s source) Pending() bool { return s() }

// TestSpin: spinning ends when there is something, when its time is over, and
// when events are due; a waiter that does not spin does not look.
func TestSpin(t *testing.T) {
	never := source(func() bool { return false })
	s := Start()
	qt.Check(t, qt.Equals(newWaiter(t, 0).Spin(&s, source(func() bool { return true }), -1), Over))

	w := newWaiter(t, time.Hour)
	n := 0
	qt.Check(t, qt.Equals(w.Spin(&s, source(func() bool { n++; return n == 50 }), -1), Found))
	qt.Check(t, qt.Equals(w.Spin(&s, never, -1), Look))
	qt.Check(t, qt.Equals(w.Spin(&s, never, 0), Over))

	short := newWaiter(t, time.Nanosecond)
	s = Start()
	qt.Check(t, qt.Equals(short.Spin(&s, never, -1), Over))

	busy := newWaiter(t, -1)
	qt.Check(t, qt.Equals(busy.Spin(&s, never, -1), Look))
	// A source that has always something does not keep the time from being over.
	always := source(func() bool { return true })
	for busy.Spin(&s, always, 0) != Over {
	}
}

// TestSpinPays: a waiter does not spin for what comes late, and begins again when
// it comes soon.
func TestSpinPays(t *testing.T) {
	w := newWaiter(t, 50*time.Microsecond)
	qt.Check(t, qt.IsTrue(w.pays()))
	late, soon := Spinning{start: Now() - 200_000}, func() Spinning { return Spinning{start: Now()} }
	for range 20 {
		w.Came(&late)
	}
	qt.Check(t, qt.IsFalse(w.pays()))
	s := Start()
	qt.Check(t, qt.Equals(w.Spin(&s, source(func() bool { return true }), -1), Over))
	for range 100 {
		s := soon()
		w.Came(&s)
	}
	qt.Check(t, qt.IsTrue(w.pays()), qt.Commentf("gap of %d ns", w.gap))
}

// TestPollNAPI: the kernel has taken what was asked for.
func TestPollNAPI(t *testing.T) {
	testkernel.SkipBefore(t, "6.9", "polling a NIC from epoll")
	w := newWaiter(t, 0)
	qt.Assert(t, qt.IsNil(w.PollNAPI(50*time.Microsecond)))
	qt.Check(t, qt.Equals(params(t, w), epollParams{busyPollUsecs: 50, busyPollBudget: 64, preferBusyPoll: 1}))
	qt.Check(t, qt.IsNotNil(w.PollNAPI(-time.Second)))
}

func params(t *testing.T, w *Waiter) (p epollParams) {
	t.Helper()
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(w.epoll), getParams, uintptr(unsafe.Pointer(&p)))
	qt.Assert(t, qt.Equals(errno, 0))
	return p
}

// TestAdapt: a waiter polls the NIC after some short sleeps, ends that when what it
// waits for comes late, and tries again; one that does not spin never does.
func TestAdapt(t *testing.T) {
	testkernel.SkipBefore(t, "6.9", "polling a NIC from epoll")
	sleeps := func(w *Waiter, n int, gap int64) {
		for range n {
			w.Adapt(true)
			s := Spinning{start: Now() - gap}
			w.Came(&s)
		}
	}
	usecs := func(w *Waiter) uint32 { return params(t, w).busyPollUsecs }
	// Long, for a machine that stands still for a moment.
	w := newWaiter(t, time.Hour)
	qt.Check(t, qt.Equals(usecs(w), 0))
	w.gap = 0
	for range tryAfter {
		sleeps(w, 1, 0)
		w.gap = 0
	}
	qt.Check(t, qt.Equals(usecs(w), 1_000_000))
	w.napi.most = 50_000
	sleeps(w, 50, gapMost)
	qt.Check(t, qt.Equals(usecs(w), 0))
	again := func() {
		for i := 0; usecs(w) != 50; i++ {
			qt.Assert(t, qt.IsTrue(i < 1000*tryAfter))
			w.gap = 0
			sleeps(w, 1, 0)
		}
	}
	again()
	w.Adapt(false)
	qt.Check(t, qt.Equals(usecs(w), 0))
	again()
	none := newWaiter(t, 0)
	sleeps(none, 2*tryAfter, 0)
	qt.Check(t, qt.Equals(usecs(none), 0))
}
