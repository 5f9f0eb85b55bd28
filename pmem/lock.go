package pmem

import (
	"bufio"
	"fmt"
	"os"
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
