package netmap

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// claim keeps the name of a pipe or a switch for this process, in the calling thread's
// network namespace, until release. They join ports of one process: another one that opens
// a port by the same name would have a pipe of its own, and wait for frames in vain.
func claim(name string) (release func() error, err error) {
	release, taken, err := hold(name)
	if taken {
		err = fmt.Errorf("%s: %w by another process; pipes and switches join ports of one process: open both ends in it, or take another name", name, ErrBusy)
	}
	return release, err
}

// claimQueue notes that this process has a NIC's queue, until release, so that another
// one that wants it learns at once that it is taken. Nothing else depends on it: every
// user of the machine may take such a name, and other programs have AF_XDP sockets too.
func claimQueue(ifindex, queue int) (release func() error, taken bool, err error) {
	return hold(fmt.Sprintf("queue/%d/%d", ifindex, queue))
}

// hold takes a name; taken says that another process has it, and then release does
// nothing. The kernel gives a name back with the process.
func hold(name string) (release func() error, taken bool, err error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@paste-netmap/" + name, Net: "unix"})
	switch {
	case err == nil:
		return l.Close, false, nil
	case errors.Is(err, unix.EADDRINUSE):
		return func() error { return nil }, true, nil
	}
	return nil, false, fmt.Errorf("claim %s: %w", name, err)
}
