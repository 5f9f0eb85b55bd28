package pmem

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockGrace is how long an opener waits for a lock: the kernel may still be
// closing the files of a process that was killed a moment ago. Tries are
// counted: while a virtual machine stands still, its kernel closes nothing.
const (
	lockGrace = 300 * time.Millisecond
	lockStep  = 10 * time.Millisecond
)

// lockFile takes the advisory lock (flock) that keeps a second writer out. It
// goes when the file description does, so also with kill -9.
func lockFile(f *os.File, how int, grace time.Duration) error {
	for left := grace / lockStep; ; time.Sleep(lockStep) {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case err == unix.EINTR:
		case err != unix.EWOULDBLOCK:
			return os.NewSyscallError("flock", err)
		case left <= 0:
			return fmt.Errorf("%w: %s is held by %s; stop that first", ErrLocked, f.Name(), lockHolder(f))
		default:
			left--
		}
	}
}

// deviceNode opens the node that the kernel has made for a character device, if
// f is another one: the lock that everybody takes, as flock belongs to a node
// and not to a device. It is nil if f is that node, or there is none, as in a
// container.
func deviceNode(f *os.File) (*os.File, error) {
	var st, own unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/sys/dev/char/%d:%d/uevent", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	if err != nil {
		return nil, fmt.Errorf("find the node of %s: %w", f.Name(), err)
	}
	for line := range strings.Lines(string(b)) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "DEVNAME=")
		path := filepath.Join("/dev", name)
		if !ok || unix.Stat(path, &own) != nil || own.Mode&unix.S_IFMT != unix.S_IFCHR || own.Rdev != st.Rdev {
			continue
		}
		if own.Dev == st.Dev && own.Ino == st.Ino {
			return nil, nil
		}
		node, err := os.OpenFile(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("lock %s by its node: %w", f.Name(), err)
		}
		return node, nil
	}
	return nil, nil
}

// lockHolder names the process that holds a flock on f, as far as
// /proc/locks tells.
func lockHolder(f *os.File) string {
	const unknown = "another process"
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return unknown
	}
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return unknown
	}
	defer locks.Close()
	id := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for sc := bufio.NewScanner(locks); sc.Scan(); {
		// "1: FLOCK  ADVISORY  WRITE 708 00:1a:13448 0 EOF" (proc_locks(5));
		// a line with "->" is a waiter.
		w := strings.Fields(sc.Text())
		if len(w) < 6 || w[1] != "FLOCK" || w[5] != id {
			continue
		}
		pid, err := strconv.Atoi(w[4])
		if err != nil || pid <= 0 {
			return unknown
		}
		if pid == os.Getpid() {
			return "this process"
		}
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil {
			return fmt.Sprintf("process %d (%s)", pid, strings.TrimSpace(string(comm)))
		}
		return fmt.Sprintf("process %d", pid)
	}
	return unknown
}
