package xsk

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Errors that a caller may want to tell apart with errors.Is. What Open returns also
// wraps the kernel's errno.
var (
	// ErrBusy: the queue already belongs to another AF_XDP socket, of this or another process.
	ErrBusy = errors.New("queue is in use by another AF_XDP socket")
	// ErrNotSupported: the device or the kernel lacks what was asked for.
	ErrNotSupported = errors.New("not supported")
	// ErrMemory: the memory cannot be a UMEM.
	ErrMemory = errors.New("memory cannot be a UMEM")
	// ErrNoSuchQueue: the device has no queue of that number.
	ErrNoSuchQueue = errors.New("no such queue")
	// ErrAgain: the kernel could not take everything yet; nothing is lost, call again (KickTx).
	ErrAgain = errors.New("transmission incomplete, try again")
)

// closedError turns the EBADF of a closed socket into net.ErrClosed.
func closedError(fd int, err error) error {
	if fd < 0 {
		return net.ErrClosed
	}
	return err
}

// registerError says why XDP_UMEM_REG failed.
func (u *Umem) registerError(err error) error {
	switch {
	case errors.Is(err, unix.EFAULT), errors.Is(err, unix.EOPNOTSUPP):
		// The kernel pins the pages for ever (FOLL_LONGTERM), which it refuses
		// for files whose blocks a file system may still move.
		return fmt.Errorf("register UMEM: %w: %s; the kernel takes anonymous memory, a memfd, "+
			"files on tmpfs or hugetlbfs, and device-DAX (/dev/daxX.Y), but neither a file on fs-DAX "+
			"nor an ordinary disk file: %w", ErrMemory, describeMemory(u.mem), err)
	case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("register UMEM: %w: cannot pin %d bytes; raise RLIMIT_MEMLOCK (ulimit -l) "+
			"or run with CAP_IPC_LOCK: %w", ErrMemory, len(u.mem), err)
	case errors.Is(err, unix.EINVAL) && u.cfg.TxMetadataLen > 0:
		return fmt.Errorf("register UMEM: %w: TX metadata (XDP_UMEM_TX_METADATA_LEN) needs Linux 6.8 "+
			"with stable updates, or 6.11: %w", ErrNotSupported, err)
	}
	return fmt.Errorf("register UMEM of %d bytes: %w", len(u.mem), err)
}

// bindError says why bind failed; where is "queue N of NAME".
func bindError(where, name string, mode BindMode, err error) error {
	switch {
	case errors.Is(err, unix.EBUSY):
		return &detail{text: where + " is in use by another AF_XDP socket", kind: ErrBusy, err: err}
	case errors.Is(err, unix.EOPNOTSUPP) && mode == ZeroCopy:
		return &detail{text: fmt.Sprintf("the driver of %s has no AF_XDP zero-copy for %s with its present settings; "+
			"use copy mode or auto, or a NIC and driver with XDP_ZEROCOPY (and an MTU that fits one frame)", name, where),
			kind: ErrNotSupported, err: err}
	case errors.Is(err, unix.EOPNOTSUPP):
		return &detail{text: name + " does not support AF_XDP", kind: ErrNotSupported, err: err}
	case errors.Is(err, unix.EINVAL):
		// Every other argument was checked before, what is left is the queue number.
		return &detail{text: where + " does not exist (ethtool -l " + name + " lists them)", kind: ErrNoSuchQueue, err: err}
	case errors.Is(err, unix.ENODEV):
		return &detail{text: name + " does not exist in this network namespace", err: err}
	}
	return fmt.Errorf("bind to %s: %w", where, err)
}

// detail is an error whose text says more than its sentinel, so that the sentinel's need
// not be repeated.
type detail struct {
	text string
	kind error // sentinel, or nil
	err  error // errno
}

func (d *detail) Error() string { return d.text + ": " + d.err.Error() }

func (d *detail) Unwrap() []error {
	if d.kind == nil {
		return []error{d.err}
	}
	return []error{d.kind, d.err}
}

// describeMemory names what is mapped at the start of mem, for an error message.
func describeMemory(mem []byte) string {
	addr := uintptr(unsafe.Pointer(unsafe.SliceData(mem)))
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return "unknown mapping"
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// start-end perms offset dev inode [path]
		fields := strings.Fields(sc.Text())
		var start, end uintptr
		if len(fields) < 5 {
			continue
		}
		if n, _ := fmt.Sscanf(fields[0], "%x-%x", &start, &end); n != 2 || addr < start || addr >= end {
			continue
		}
		what := "anonymous mapping"
		if len(fields) > 5 {
			what = "mapping of " + strings.Join(fields[5:], " ")
		}
		if !strings.HasPrefix(fields[1], "rw") {
			return fmt.Sprintf("%s is not writable (%s)", what, fields[1])
		}
		return what
	}
	return "nothing is mapped at its start"
}
