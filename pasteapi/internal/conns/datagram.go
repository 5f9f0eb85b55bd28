package conns

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// IsDatagram says whether a descriptor is a UDP socket.
func IsDatagram(fd int) bool {
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	return err == nil && proto == unix.IPPROTO_UDP
}

// OpenDatagram looks at a UDP socket that is bound or connected, and makes it
// non-blocking. Peer is not valid where it is not connected. v6 is the socket's family.
// The descriptor stays the caller's.
func OpenDatagram(fd int) (c Conn, v6 bool, err error) {
	c.FD = fd
	local, err := unix.Getsockname(fd)
	if err != nil {
		return c, false, os.NewSyscallError("getsockname", err)
	}
	_, v6 = local.(*unix.SockaddrInet6)
	if c.Local, err = AddrPort(local); err != nil {
		return c, v6, err
	}
	if peer, err := unix.Getpeername(fd); err == nil {
		if c.Peer, err = AddrPort(peer); err != nil {
			return c, v6, err
		}
	}
	if c.Local.Port() == 0 {
		return c, v6, fmt.Errorf("%w: a UDP socket has to be bound, or connected", ErrNotConnected)
	}
	if c.Cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil {
		return c, v6, os.NewSyscallError("getsockopt", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return c, v6, os.NewSyscallError("fcntl", err)
	}
	return c, v6, nil
}
