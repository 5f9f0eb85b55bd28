package uring

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// New sets up a ring with a submission queue of at least entries entries; the
// kernel rounds up to a power of two and clamps to its limit. Errors wrap
// [ErrNotAvailable] when the machine has no usable io_uring.
func New(entries uint32, opt Options) (*Ring, error) {
	cq := opt.CQEntries
	if cq == 0 {
		cq = 4 * entries
	}
	base := uint32(setupCQSize | setupClamp | setupSubmitAll)
	var want []uint32
	switch {
	case opt.DeferTaskrun:
		want = []uint32{setupSingleIssuer | setupDeferTaskrun | setupTaskrunFlag | setupNoSQArray,
			setupSingleIssuer | setupDeferTaskrun | setupTaskrunFlag}
		fallthrough
	case opt.SingleIssuer:
		want = append(want, setupSingleIssuer|setupCoopTaskrun|setupTaskrunFlag|setupNoSQArray,
			setupSingleIssuer|setupCoopTaskrun|setupTaskrunFlag)
	default:
		want = []uint32{setupCoopTaskrun | setupTaskrunFlag | setupNoSQArray}
	}
	want = append(want, setupCoopTaskrun|setupTaskrunFlag, 0)

	var p params
	var fd uintptr
	var errno unix.Errno
	for _, w := range want {
		p = params{cqEntries: cq, flags: base | w}
		fd, _, errno = unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
		if errno != unix.EINVAL {
			break
		}
	}
	if errno != 0 {
		return nil, setupError(entries, errno)
	}
	r := &Ring{fd: int(fd), features: p.features, flags: p.flags}
	unix.CloseOnExec(r.fd)
	const need = featSingleMmap | featNoDrop | featExtArg
	if p.features&need != need {
		_ = r.Close()
		return nil, fmt.Errorf("%w: the kernel lacks features %#x, Linux 5.11 or newer is needed", ErrNotAvailable, need&^p.features)
	}
	if err := r.mmap(&p); err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

// Check returns nil where this process can have a ring, and otherwise an error that
// wraps [ErrNotAvailable] and names the remedy.
func Check() error {
	r, err := New(1, Options{})
	if err != nil {
		return err
	}
	return r.Close()
}

func setupError(entries uint32, errno unix.Errno) error {
	switch errno {
	case unix.ENOSYS:
		return fmt.Errorf("%w: io_uring_setup: %w; use a kernel built with CONFIG_IO_URING, or a seccomp profile that allows io_uring", ErrNotAvailable, errno)
	case unix.EPERM:
		remedy := "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile"
		if b, err := os.ReadFile("/proc/sys/kernel/io_uring_disabled"); err == nil && len(b) > 0 && b[0] != '0' {
			remedy = "run sysctl kernel.io_uring_disabled=0"
		}
		return fmt.Errorf("%w: io_uring_setup: %w; %s", ErrNotAvailable, errno, remedy)
	case unix.ENOMEM:
		return fmt.Errorf("io_uring_setup with %d entries: %w; raise RLIMIT_MEMLOCK (ulimit -l)", entries, errno)
	}
	return fmt.Errorf("io_uring_setup with %d entries: %w", entries, errno)
}

func (r *Ring) mmap(p *params) (err error) {
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	sqSize := int(p.sqOff.array)
	if p.flags&setupNoSQArray == 0 {
		sqSize += int(p.sqEntries) * 4
	}
	cqSize := int(p.cqOff.cqes) + int(p.cqEntries)*int(unsafe.Sizeof(CQE{}))
	if r.ringMem, err = unix.Mmap(r.fd, offSQRing, max(sqSize, cqSize), prot, flags); err != nil {
		return fmt.Errorf("map io_uring queues: %w", err)
	}
	if r.sqeMem, err = unix.Mmap(r.fd, offSQEs, int(p.sqEntries)*int(unsafe.Sizeof(SQE{})), prot, flags); err != nil {
		return fmt.Errorf("map io_uring submission entries: %w", err)
	}
	if r.argMem, err = unix.Mmap(-1, 0, os.Getpagesize(), prot, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		return fmt.Errorf("map io_uring arguments: %w", err)
	}
	r.arg = (*geteventsArg)(unsafe.Pointer(&r.argMem[0]))

	u32 := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.ringMem[off])) }
	r.sqHead, r.sqTailP, r.sqFlags = u32(p.sqOff.head), u32(p.sqOff.tail), u32(p.sqOff.flags)
	r.sqEntries, r.sqMask = p.sqEntries, *u32(p.sqOff.ringMask)
	r.sqes = unsafe.Slice((*SQE)(unsafe.Pointer(&r.sqeMem[0])), p.sqEntries)
	r.sqTail = *r.sqTailP
	r.cqHead, r.cqTailP = u32(p.cqOff.head), u32(p.cqOff.tail)
	r.cqEntries, r.cqMask = p.cqEntries, *u32(p.cqOff.ringMask)
	r.cqes = unsafe.Slice((*CQE)(unsafe.Pointer(&r.ringMem[p.cqOff.cqes])), p.cqEntries)
	if p.flags&setupNoSQArray == 0 {
		// The indirection is of no use to us: entry i is always SQE i.
		for i, a := uint32(0), unsafe.Slice(u32(p.sqOff.array), p.sqEntries); i < p.sqEntries; i++ {
			a[i] = i
		}
	}
	return nil
}
