package uring

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

func TestLayouts(t *testing.T) {
	qt.Check(t, qt.Equals(unsafe.Sizeof(SQE{}), 64))
	qt.Check(t, qt.Equals(unsafe.Sizeof(CQE{}), 16))
	qt.Check(t, qt.Equals(unsafe.Sizeof(params{}), 120))
	qt.Check(t, qt.Equals(unsafe.Sizeof(bufReg{}), 40))
	qt.Check(t, qt.Equals(unsafe.Sizeof(bufEntry{}), 16))
	qt.Check(t, qt.Equals(unsafe.Sizeof(syncCancelReg{}), 64))
	qt.Check(t, qt.Equals(unsafe.Offsetof(geteventsArg{}.sec), geteventsArgSize))
}

// variants are the set-up flag combinations that callers use.
var variants = map[string]Options{
	"default": {},
	"single":  {SingleIssuer: true},
	"defer":   {DeferTaskrun: true},
}

func eachVariant(t *testing.T, fn func(t *testing.T, opt Options)) {
	for name, opt := range variants {
		t.Run(name, func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			fn(t, opt)
		})
	}
}

func newRing(t *testing.T, entries uint32, opt Options) *Ring {
	t.Helper()
	r, err := New(entries, opt)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(r.Close())) })
	return r
}

func socketPair(t *testing.T) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds[0], fds[1]
}

// memory is n bytes outside of the Go heap.
func memory(t *testing.T, n int) []byte {
	t.Helper()
	m, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { unix.Munmap(m) })
	return m
}

// next waits for one completion and consumes it.
func next(t *testing.T, r *Ring) CQE {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; {
		if c, ok := r.PeekCQE(); ok {
			v := *c
			r.Advance(1)
			return v
		}
		qt.Assert(t, qt.IsTrue(time.Now().Before(deadline)), qt.Commentf("no completion"))
		_, err := r.SubmitAndWait(1, time.Second)
		qt.Assert(t, qt.IsNil(err))
	}
}

func TestBatchOfSends(t *testing.T) {
	eachVariant(t, func(t *testing.T, opt Options) {
		r := newRing(t, 64, opt)
		m := memory(t, 4096)
		copy(m, "0123456789abcdef")
		const n = 32
		var rx [n]int
		for i := range rx {
			var tx int
			tx, rx[i] = socketPair(t)
			e := r.GetSQE()
			qt.Assert(t, qt.IsNotNil(e))
			e.Send(tx, unsafe.Pointer(&m[0]), uint32(i%16+1), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			e.SetUserData(uint64(i))
		}
		qt.Assert(t, qt.Equals(r.Pending(), n))
		got, err := r.Submit()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(got, n))
		qt.Assert(t, qt.Equals(r.Enters(), 1))
		seen := 0
		for seen < n {
			seen += r.ForEach(func(c *CQE) { qt.Check(t, qt.Equals(uint64(c.Res), c.UserData%16+1)) })
		}
		var buf [64]byte
		for i, fd := range rx {
			k, err := unix.Read(fd, buf[:])
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(string(buf[:k]), "0123456789abcdef"[:i%16+1]))
		}
	})
}

func TestQueueFullThenSubmit(t *testing.T) {
	r := newRing(t, 4, Options{})
	for range r.Entries() {
		r.GetSQE().Nop()
	}
	qt.Assert(t, qt.IsNil(r.GetSQE()))
	_, err := r.Submit()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNotNil(r.GetSQE()))
}

func TestShortSendThenEAGAIN(t *testing.T) {
	r := newRing(t, 8, Options{})
	tx, _ := socketPair(t)
	m := memory(t, 8<<20)
	send := func() int32 {
		r.GetSQE().Send(tx, unsafe.Pointer(&m[0]), uint32(len(m)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		_, err := r.Submit()
		qt.Assert(t, qt.IsNil(err))
		return next(t, r).Res
	}
	first := send()
	qt.Check(t, qt.IsTrue(first > 0 && int(first) < len(m)), qt.Commentf("result %d", first))
	res := send()
	for res > 0 {
		res = send()
	}
	qt.Assert(t, qt.Equals(unix.Errno(-res), unix.EAGAIN))
}

func TestOneBadDescriptorDoesNotStopTheBatch(t *testing.T) {
	r := newRing(t, 8, Options{})
	tx, rx := socketPair(t)
	m := memory(t, 4096)
	copy(m, "ok")
	r.GetSQE().Send(-1, unsafe.Pointer(&m[0]), 2, unix.MSG_DONTWAIT)
	r.GetSQE().Send(tx, unsafe.Pointer(&m[0]), 2, unix.MSG_DONTWAIT)
	n, err := r.Submit()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(n, 2))
	qt.Check(t, qt.Equals(unix.Errno(-next(t, r).Res), unix.EBADF))
	qt.Check(t, qt.Equals(next(t, r).Res, 2))
	var buf [8]byte
	k, err := unix.Read(rx, buf[:])
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(string(buf[:k]), "ok"))
}

func TestSendMsg(t *testing.T) {
	r := newRing(t, 8, Options{})
	tx, rx := socketPair(t)
	m := memory(t, 4096)
	copy(m, "headbody")
	var pin runtime.Pinner
	defer pin.Unpin()
	iov := &[2]unix.Iovec{{Base: &m[0], Len: 4}, {Base: &m[4], Len: 4}}
	hdr := &unix.Msghdr{Iov: &iov[0]}
	hdr.SetIovlen(2)
	pin.Pin(iov)
	pin.Pin(hdr)
	r.GetSQE().SendMsg(tx, hdr, unix.MSG_NOSIGNAL)
	qt.Assert(t, qt.Equals(next(t, r).Res, 8))
	var buf [16]byte
	k, err := unix.Read(rx, buf[:])
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(string(buf[:k]), "headbody"))
}

func TestOverflowIsFetched(t *testing.T) {
	r := newRing(t, 8, Options{CQEntries: 8})
	const n = 40
	for i := range n {
		e := r.GetSQE()
		e.Nop()
		e.SetUserData(uint64(i))
		if r.Pending() == int(r.Entries()) {
			_, err := r.Submit()
			qt.Assert(t, qt.IsNil(err))
		}
	}
	_, err := r.Submit()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(r.Overflowed()))
	for i := range n {
		c, ok := r.PeekCQE()
		qt.Assert(t, qt.IsTrue(ok), qt.Commentf("completion %d", i))
		qt.Check(t, qt.Equals(c.UserData, uint64(i)))
		r.Advance(1)
	}
	_, ok := r.PeekCQE()
	qt.Assert(t, qt.IsFalse(ok))
}

func TestSubmitAndWaitTimesOut(t *testing.T) {
	r := newRing(t, 8, Options{})
	start := time.Now()
	_, err := r.SubmitAndWait(1, 5*time.Millisecond)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(time.Since(start) >= 5*time.Millisecond))
	qt.Assert(t, qt.Equals(r.Ready(), 0))
}

// mappings counts this process's mappings of io_uring instances.
func mappings(t *testing.T) int {
	b, err := os.ReadFile("/proc/self/maps")
	qt.Assert(t, qt.IsNil(err))
	return strings.Count(string(b), "[io_uring]")
}

func TestCloseReleasesEverything(t *testing.T) {
	before := mappings(t)
	r, err := New(8, Options{})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(mappings(t) > before), qt.Commentf("%d before", before))
	tx, rx := socketPair(t)
	b, err := r.RegisterBufRing(1, 8)
	qt.Assert(t, qt.IsNil(err))
	m := memory(t, 4096)
	b.Add(unsafe.Pointer(&m[0]), 4096, 0)
	b.Advance()
	r.GetSQE().RecvMultishot(rx, 1, 0)
	_, err = r.Submit()
	qt.Assert(t, qt.IsNil(err))

	fd := r.Fd()
	qt.Assert(t, qt.IsNil(r.Close()))
	qt.Assert(t, qt.IsNil(r.Close()))
	qt.Check(t, qt.Equals(mappings(t), before))
	target, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	qt.Check(t, qt.Not(qt.StringContains(target, "io_uring")))
	qt.Check(t, qt.Equals(r.Fd(), -1))
	qt.Check(t, qt.IsNil(r.GetSQE()))
	_, err = r.Submit()
	qt.Check(t, qt.ErrorIs(err, ErrClosed))
	_, err = r.SubmitAndWait(1, -1)
	qt.Check(t, qt.ErrorIs(err, ErrClosed))
	_, ok := r.PeekCQE()
	qt.Check(t, qt.IsFalse(ok))

	// The kernel has let go of the buffer: what is written now stays in the socket.
	_, err = unix.Write(tx, []byte("later"))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(m[0], 0))
}

func TestSetupErrorsNameTheRemedy(t *testing.T) {
	qt.Check(t, qt.ErrorIs(setupError(1, unix.ENOSYS), ErrNotAvailable))
	qt.Check(t, qt.ErrorMatches(setupError(1, unix.EPERM), ".*(seccomp|sysctl).*"))
	qt.Check(t, qt.ErrorIs(setupError(1, unix.EPERM), ErrNotAvailable))
	qt.Check(t, qt.ErrorMatches(setupError(1, unix.ENOMEM), ".*RLIMIT_MEMLOCK.*"))
	_, err := New(0, Options{})
	qt.Check(t, qt.ErrorIs(err, unix.EINVAL))
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	r := newRing(t, 8, Options{})
	n := testing.AllocsPerRun(100, func() {
		r.GetSQE().Nop()
		_, _ = r.SubmitAndWait(1, time.Second)
		if _, ok := r.PeekCQE(); ok {
			r.Advance(1)
		}
	})
	qt.Assert(t, qt.Equals(n, 0))
}

func TestRegisteredFile(t *testing.T) {
	r := newRing(t, 4, Options{})
	var p [2]int
	qt.Assert(t, qt.IsNil(unix.Pipe2(p[:], unix.O_CLOEXEC)))
	qt.Assert(t, qt.IsNil(r.RegisterFiles(int32(p[1]))))
	qt.Assert(t, qt.IsNil(unix.Close(p[1]))) // the ring has it open
	b := []byte("fixed")
	sqe := r.GetSQE()
	sqe.Write(0, unsafe.Pointer(&b[0]), uint32(len(b)))
	sqe.SetFlags(FlagFixedFile)
	_, err := r.SubmitAndWait(1, -1)
	qt.Assert(t, qt.IsNil(err))
	cqe, ok := r.PeekCQE()
	qt.Assert(t, qt.IsTrue(ok))
	qt.Assert(t, qt.Equals(cqe.Res, int32(len(b))))
	got := make([]byte, 10)
	n, err := unix.Read(p[0], got)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(string(got[:n]), "fixed"))
	qt.Assert(t, qt.IsNil(unix.Close(p[0])))
	qt.Assert(t, qt.IsNotNil(r.RegisterFiles(-5)))
}
