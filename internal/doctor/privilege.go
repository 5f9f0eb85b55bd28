package doctor

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/internal/bytesize"
)

func capabilities(*machine) Result {
	if err := bpf.CheckPrivilege(); err != nil {
		r := failed(Missing, err)
		r.Remedy = "run as root, or give a unit AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW CAP_BPF CAP_PERFMON"
		return r
	}
	return ok("CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_PERFMON are there")
}

// tunDevice is about the device by which received payload is injected. Its mode counts
// whatever the capabilities: CAP_NET_ADMIN does not open a file.
func tunDevice(m *machine) Result {
	const path = "dev/net/tun"
	st, err := os.Stat(m.root + path)
	if errors.Is(err, fs.ErrNotExist) {
		return missing("modprobe tun", "/dev/net/tun does not exist: nothing can be steered")
	}
	if err != nil {
		return failed(Missing, err)
	}
	mode := st.Mode().Perm()
	if err := unix.Faccessat(unix.AT_FDCWD, m.root+path, unix.R_OK|unix.W_OK, unix.AT_EACCESS); err != nil {
		return missing("chmod 0666 /dev/net/tun (for good: a udev rule KERNEL==\"tun\", MODE=\"0666\")",
			"mode %#o does not let this user open it: nothing can be steered", mode)
	}
	if mode&0o006 != 0o006 {
		return ok("mode %#o: this user may open it, not every user", mode)
	}
	return ok("mode %#o", mode)
}

// memlock is about what AF_XDP pins: the whole pool (xdp_umem_account_pages in
// net/xdp/xdp_umem.c).
func memlock(m *machine) Result {
	if haveCap(unix.CAP_IPC_LOCK) {
		return ok("CAP_IPC_LOCK: a pool of any size can be pinned")
	}
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l); err != nil {
		return failed(Missing, os.NewSyscallError("getrlimit", err))
	}
	if l.Cur == unix.RLIM_INFINITY {
		return ok("no limit")
	}
	limit, pool := bytesize.Size(l.Cur).Human(), bytesize.Size(m.pool).Human()
	if l.Cur < uint64(m.pool) {
		return missing("ulimit -l unlimited (a unit: LimitMEMLOCK=infinity), or CAP_IPC_LOCK",
			"RLIMIT_MEMLOCK is %s, a pool has %s: it cannot be pinned, so nothing can be steered into it", limit, pool)
	}
	return ok("RLIMIT_MEMLOCK is %s, a pool has %s", limit, pool)
}

// fewFiles is the number of descriptors below which connections are refused that a
// ring would take: its default is 16384, and everybody needs some.
const fewFiles = 16384 + 64

// nofile looks at the hard limit: Go's programs raise the other one to it.
func nofile(*machine) Result {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return failed(Missing, os.NewSyscallError("getrlimit", err))
	}
	if l.Max < fewFiles {
		return slow("ulimit -Hn 1048576 as root (a unit: LimitNOFILE=1048576)",
			"RLIMIT_NOFILE is %d: connections beyond that are refused, although a ring takes 16384", l.Max)
	}
	return ok("RLIMIT_NOFILE is %d", l.Max)
}
