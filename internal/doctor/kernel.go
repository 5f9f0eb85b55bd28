package doctor

import (
	"errors"
	"strings"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/internal/uring"
	"github.com/pastenet/paste/pasteapi"
)

func kernelVersion(*machine) Result {
	release, err := bpf.KernelRelease()
	if err != nil {
		return failed(Missing, err)
	}
	if err := bpf.CheckRelease(); err != nil {
		return failed(Missing, err)
	}
	return ok("Linux %s", release)
}

// feature is the check for the feature whose name begins so.
func feature(prefix string) func(*machine) Result {
	return func(m *machine) Result {
		for _, f := range m.features {
			if !strings.HasPrefix(f.Name, prefix) {
				continue
			}
			if errors.Is(f.Err, bpf.ErrNoPrivilege) {
				return missing("run pastectl doctor as root", "%s: this user may not find out", f.Name)
			}
			if f.Err != nil {
				return failed(Missing, f.Err)
			}
			return ok("%s", f.Name)
		}
		return missing("", "nobody looks for %s: a mistake in this program", prefix)
	}
}

func ioURing(*machine) Result {
	if err := uring.Check(); err != nil {
		r := failed(Slow, err)
		r.What += ": each send is a system call of its own"
		return r
	}
	return ok("usable for sending in batches")
}

func napiPoll(*machine) Result {
	err := pasteapi.CheckNAPIPoll()
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return slow("boot Linux 6.9 or newer, built with CONFIG_NET_RX_BUSY_POLL", "%v", err)
	case err != nil:
		return failed(Slow, err)
	}
	return ok("a ring can poll a NIC's queue (--napi-poll, --spin)")
}

// seccomp looks at the mode of this thread's filter (proc_pid_status(5)).
func seccomp(m *machine) Result {
	for line := range strings.Lines(m.value("proc/thread-self/status")) {
		mode, found := strings.CutPrefix(line, "Seccomp:")
		if !found {
			continue
		}
		if strings.TrimSpace(mode) == "0" {
			return ok("no filter on system calls")
		}
		return slow("let the profile allow bpf, perf_event_open, setsockopt of AF_XDP sockets and io_uring_* (a container: --security-opt seccomp=FILE; a unit: SystemCallFilter=)",
			"system calls are filtered: what the lines above and below say of features may be the filter's doing")
	}
	return ok("this kernel filters no system calls")
}
