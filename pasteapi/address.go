package pasteapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Ports of a network namespace are found at abstract unix addresses, which every user
// of the machine may take: so both sides look who the other one is.

var portNumber atomic.Int64

// listenAs listens at an address of this process's own: a prefix, the process's id and a
// number, in the calling thread's network namespace.
func listenAs(prefix string) (*net.UnixListener, error) {
	name := fmt.Sprintf("%s%d/%d", prefix, os.Getpid(), portNumber.Add(1))
	return net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
}

// mayAsk says whether to answer a peer: root, or the owner of this process.
func mayAsk(peer *net.UnixConn) bool {
	cred, err := peerCred(peer)
	return err == nil && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
}

func dialPort(ctx context.Context, address string) (*net.UnixConn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", address)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// ask connects to who listens at an address, and says whose process that is. The error is
// os.ErrNotExist if there is nobody, and wraps os.ErrPermission if this user must not
// believe what comes: it belongs to another one, who is not root. Root is told.
func ask(ctx context.Context, address string) (conn *net.UnixConn, cred *unix.Ucred, err error) {
	conn, err = dialPort(ctx, address)
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil, nil, os.ErrNotExist
	}
	if err != nil {
		return nil, nil, err
	}
	cred, err = peerCred(conn)
	if me := os.Geteuid(); err == nil && cred.Uid != 0 && int(cred.Uid) != me && me != 0 {
		err = fmt.Errorf("process %d belongs to user %d: %w", cred.Pid, cred.Uid, os.ErrPermission)
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, cred, nil
}

// twice asks once more where there was no answer: a port that is closed, or whose NIC gets
// another name, may leave a question without one, and then nobody is at the address any
// more.
func twice(ctx context.Context, question func() error) error {
	err := question()
	if err != nil && ctx.Err() == nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrDeadlineExceeded) {
		err = question()
	}
	return err
}

// peerCred returns who is at the other end: of a connected socket the process
// that connected, or the one that listens.
func peerCred(c *net.UnixConn) (cred *unix.Ucred, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := rc.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(cerr, os.NewSyscallError("getsockopt SO_PEERCRED", err))
}

// soAcceptCon marks a listener in the flags of /proc/net/unix (__SO_ACCEPTCON,
// include/linux/net.h).
const soAcceptCon = "00010000"

// listeners reads from the kernel's table what listens at addresses with a prefix, and
// returns the rest of each: columns Num, RefCount, Protocol, Flags, Type, St, Inode, Path.
func listeners(prefix string) ([]string, error) {
	f, err := os.Open("/proc/thread-self/net/unix")
	if err != nil {
		return nil, fmt.Errorf("list applications: %w", err)
	}
	defer f.Close()
	var nics []string
	for lines := bufio.NewScanner(f); ; {
		if !lines.Scan() {
			if err := lines.Err(); err != nil {
				return nil, fmt.Errorf("list applications: %w", err)
			}
			slices.Sort(nics)
			return slices.Compact(nics), nil
		}
		fields := strings.Fields(lines.Text())
		if len(fields) != 8 || fields[3] != soAcceptCon {
			continue
		}
		if nic, ok := strings.CutPrefix(fields[7], prefix); ok && nic != "" {
			nics = append(nics, nic)
		}
	}
}
