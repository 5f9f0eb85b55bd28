package netmap

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// claim keeps the name of a pipe or a switch for this process, in the calling thread's
// network namespace, until release. They join ports of one process: another one that opens
// a port by the same name would have a pipe of its own, and wait for frames in vain. The
// kernel gives the name back with the process.
func claim(name string) (release func() error, err error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@paste-netmap/" + name, Net: "unix"})
	switch {
	case err == nil:
		return l.Close, nil
	case errors.Is(err, unix.EADDRINUSE):
		return nil, fmt.Errorf("%s: %w by another process; pipes and switches join ports of one process: open both ends in it, or take another name", name, ErrBusy)
	}
	return nil, fmt.Errorf("claim %s: %w", name, err)
}
