package uring

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

var (
	// ErrNotAvailable means that this machine has no io_uring for us: not in
	// the kernel, switched off by sysctl, or hidden by a seccomp filter.
	ErrNotAvailable = errors.New("io_uring is not available")
	// ErrClosed is returned by methods of a closed [Ring].
	ErrClosed = errors.New("io_uring ring is closed")
)

// Options of a ring. The zero value is good for a ring that several threads
// use one after the other.
type Options struct {
	// CQEntries is the size of the completion queue. 0 means 4 times the
	// submission queue. The kernel rounds up to a power of two.
	CQEntries uint32
	// SingleIssuer promises that the thread calling New is the only one that
	// ever uses the ring (IORING_SETUP_SINGLE_ISSUER).
	SingleIssuer bool
	// DeferTaskrun runs completion work only inside [Ring.SubmitAndWait],
	// [Ring.SubmitAndReap] and [Ring.PeekCQE], which makes batches larger
	// (IORING_SETUP_DEFER_TASKRUN). It implies SingleIssuer.
	DeferTaskrun bool
}

// Ring is one io_uring instance. See the package documentation for who may use
// it and what memory it may be given.
type Ring struct {
	fd       int
	features uint32
	flags    uint32
	enters   uint64

	ringMem []byte
	sqeMem  []byte
	argMem  []byte
	arg     *geteventsArg

	sqHead    *uint32
	sqTailP   *uint32
	sqFlags   *uint32
	sqMask    uint32
	sqEntries uint32
	sqes      []SQE
	sqTail    uint32 // next entry to hand out; published at submit

	cqHead    *uint32
	cqTailP   *uint32
	cqMask    uint32
	cqEntries uint32
	cqes      []CQE

	bufRings []*BufRing
	files    bool // some are registered
}

// Fd is the ring's file descriptor, readable (POLLIN) while completions wait.
// It belongs to the ring. It is -1 after Close.
func (r *Ring) Fd() int { return r.fd }

// Enters counts the io_uring_enter system calls made so far.
func (r *Ring) Enters() uint64 { return r.enters }

// Entries is the size of the submission queue that the kernel granted.
func (r *Ring) Entries() uint32 { return r.sqEntries }

// CQEntries is the size of the completion queue that the kernel granted.
func (r *Ring) CQEntries() uint32 { return r.cqEntries }

// Pending is the number of SQEs handed out by GetSQE and not yet taken by the
// kernel.
func (r *Ring) Pending() int {
	if r.fd < 0 {
		return 0
	}
	return int(r.sqTail - atomic.LoadUint32(r.sqHead))
}

// GetSQE hands out the next submission entry, zeroed, or nil when the queue is
// full (submit first) or the ring is closed.
func (r *Ring) GetSQE() *SQE {
	if r.fd < 0 || r.sqTail-atomic.LoadUint32(r.sqHead) >= r.sqEntries {
		return nil
	}
	e := &r.sqes[r.sqTail&r.sqMask]
	*e = SQE{}
	r.sqTail++
	return e
}

// Submit hands all pending SQEs to the kernel without waiting and returns how
// many it took. It makes no system call when there are none. EAGAIN and EBUSY
// (completion queue over-full) mean: consume completions, then call again;
// nothing that was queued is lost.
//
// It uses a raw system call that the Go scheduler does not see: operations that
// complete at once (sends, mostly) are run inside.
func (r *Ring) Submit() (int, error) {
	if r.fd < 0 {
		return 0, ErrClosed
	}
	n := r.publish()
	if n == 0 {
		return 0, nil
	}
	return r.raw(n, 0)
}

// SubmitAndReap is Submit that also runs the completion work which has
// accumulated: with [Options.DeferTaskrun] the one call that a busy-polling loop
// needs. It always enters the kernel and never waits.
func (r *Ring) SubmitAndReap() (int, error) {
	if r.fd < 0 {
		return 0, ErrClosed
	}
	return r.raw(r.publish(), enterGetEvents)
}

func (r *Ring) raw(n uint32, flags uintptr) (int, error) {
	r.enters++
	got, _, errno := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(n), 0, flags, 0, 0)
	return enterResult(got, n, errno)
}

// SubmitAndWait hands all pending SQEs to the kernel and waits until at least n
// completions are there. A negative timeout waits for ever, zero not at all.
// It returns how many SQEs the kernel took. A time-out or an interrupting signal
// is not an error: look at the completion queue.
func (r *Ring) SubmitAndWait(n uint32, timeout time.Duration) (int, error) {
	if r.fd < 0 {
		return 0, ErrClosed
	}
	if n == 0 || timeout == 0 {
		return r.SubmitAndReap()
	}
	sub := r.publish()
	*r.arg = geteventsArg{}
	if timeout > 0 {
		r.arg.sec, r.arg.nsec = int64(timeout/time.Second), int64(timeout%time.Second)
		r.arg.ts = uint64(uintptr(unsafe.Pointer(&r.arg.sec)))
	}
	r.enters++
	got, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(sub), uintptr(n),
		enterGetEvents|enterExtArg, uintptr(unsafe.Pointer(r.arg)), geteventsArgSize)
	return enterResult(got, sub, errno)
}

func enterResult(got uintptr, n uint32, errno unix.Errno) (int, error) {
	switch errno {
	case 0:
		return int(got), nil
	case unix.ETIME, unix.EINTR:
		return 0, nil
	}
	return 0, fmt.Errorf("io_uring_enter with %d submissions: %w", n, errno)
}

// publish makes the entries handed out so far visible to the kernel and
// returns how many it has not taken yet.
func (r *Ring) publish() uint32 {
	atomic.StoreUint32(r.sqTailP, r.sqTail)
	return r.sqTail - atomic.LoadUint32(r.sqHead)
}

// PeekCQE returns the oldest completion without consuming it: call Advance(1)
// when done. When the queue is empty but the kernel has completions in its
// overflow list or completion work to run, it fetches them first; otherwise
// it makes no system call.
func (r *Ring) PeekCQE() (*CQE, bool) {
	if r.fd < 0 {
		return nil, false
	}
	if r.Ready() == 0 {
		if atomic.LoadUint32(r.sqFlags)&(sqCQOverflow|sqTaskrun) == 0 {
			return nil, false
		}
		// Nothing is submitted here, so an error has no one to tell: the
		// next submit reports it again.
		_, _ = r.raw(0, enterGetEvents)
		if r.Ready() == 0 {
			return nil, false
		}
	}
	return &r.cqes[*r.cqHead&r.cqMask], true
}

// Ready is the number of completions that can be consumed without entering the
// kernel.
func (r *Ring) Ready() uint32 {
	if r.fd < 0 {
		return 0
	}
	return atomic.LoadUint32(r.cqTailP) - *r.cqHead
}

// Overflowed reports whether completions wait in the kernel because the
// completion queue was full. PeekCQE and ForEach fetch them.
func (r *Ring) Overflowed() bool {
	return r.fd >= 0 && atomic.LoadUint32(r.sqFlags)&sqCQOverflow != 0
}

// Advance gives n consumed completions back to the kernel.
func (r *Ring) Advance(n uint32) {
	if r.fd >= 0 {
		atomic.StoreUint32(r.cqHead, *r.cqHead+min(n, r.Ready()))
	}
}

// ForEach calls fn for each completion that is there when it starts, each
// consumed when fn returns, and returns how many there were. fn may queue SQEs
// and may submit.
func (r *Ring) ForEach(fn func(*CQE)) int {
	if _, ok := r.PeekCQE(); !ok {
		return 0
	}
	n := r.Ready()
	for i := uint32(0); i < n && r.fd >= 0; i++ {
		c := r.cqes[*r.cqHead&r.cqMask]
		r.Advance(1)
		fn(&c)
	}
	return int(n)
}

// RegisterFiles tells the kernel once which files operations are for, which then
// need not look up a descriptor each. The ring keeps them open until Close.
func (r *Ring) RegisterFiles(fds ...int32) error {
	if r.fd < 0 {
		return ErrClosed
	}
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), registerFiles,
		uintptr(unsafe.Pointer(unsafe.SliceData(fds))), uintptr(len(fds)), 0, 0); errno != 0 {
		return fmt.Errorf("register %d files: %w", len(fds), errno)
	}
	r.files = true
	return nil
}

// Close cancels what is in flight, waiting up to a second for the kernel to
// let go of the memory it was given, and releases the ring and its provided
// buffer rings. It is idempotent.
func (r *Ring) Close() error {
	if r.fd < 0 {
		return nil
	}
	c := syncCancelReg{fd: -1, flags: cancelAny | cancelAll, sec: 1}
	// ENOENT: nothing in flight. Others: an old kernel, or another thread than
	// the issuer; closing the descriptor then cancels asynchronously.
	_, _, _ = unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), registerSyncCancel, uintptr(unsafe.Pointer(&c)), 1, 0, 0)
	if r.files {
		// With the ring they would be let go too, but at some time after Close.
		_, _, _ = unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), unregisterFiles, 0, 0, 0, 0)
	}
	var errs []error
	for _, b := range r.bufRings {
		errs = append(errs, b.release())
	}
	fd := r.fd
	r.fd, r.bufRings = -1, nil
	errs = append(errs, os.NewSyscallError("close io_uring", unix.Close(fd)))
	for _, m := range []*[]byte{&r.ringMem, &r.sqeMem, &r.argMem} {
		if *m != nil {
			errs = append(errs, os.NewSyscallError("munmap io_uring", unix.Munmap(*m)))
			*m = nil
		}
	}
	r.sqHead, r.sqTailP, r.sqFlags, r.sqes = nil, nil, nil, nil
	r.cqHead, r.cqTailP, r.cqes, r.arg = nil, nil, nil, nil
	return errors.Join(errs...)
}
