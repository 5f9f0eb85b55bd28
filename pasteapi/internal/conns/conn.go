// Package conns knows which TCP connection a descriptor, or a received packet,
// belongs to.
package conns

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"github.com/pastenet/paste/bpf"
	"golang.org/x/sys/unix"
)

var (
	// ErrNotSocket says that a descriptor is not a TCP socket.
	ErrNotSocket = errors.New("not a TCP socket")
	// ErrNotConnected says that a socket is not connected: a listener, never
	// connected, or reset by its peer. The last is an ordinary event.
	ErrNotConnected = errors.New("socket is not connected")
	// ErrRegistered says that a socket is registered already.
	ErrRegistered error = registered{}
)

// registered is an fs.ErrExist with words of its own.
type registered struct{}

func (registered) Error() string { return "socket is already registered" }
func (registered) Unwrap() error { return fs.ErrExist }

// Conn says which connection a socket is.
type Conn struct {
	FD          int
	Cookie      uint64 // SO_COOKIE: no other socket has it, ever
	Peer, Local netip.AddrPort
	Flow        bpf.Flow // its entry in the order of segments
}

// Open looks at a connected TCP socket, and makes it non-blocking, TCP_NODELAY and
// SO_OOBINLINE. The descriptor stays the caller's.
func Open(fd int) (Conn, error) {
	c := Conn{FD: fd}
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return c, fmt.Errorf("%w: %w", ErrNotSocket, os.NewSyscallError("getsockopt", err))
	}
	if proto == unix.IPPROTO_MPTCP {
		return c, fmt.Errorf("%w: it is multipath tcp (net.ListenConfig: SetMultipathTCP(false))", ErrNotSocket)
	}
	if proto != unix.IPPROTO_TCP {
		return c, ErrNotSocket
	}
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return c, fmt.Errorf("%w: %w", ErrNotConnected, os.NewSyscallError("getpeername", err))
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		return c, os.NewSyscallError("getsockname", err)
	}
	if c.Peer, err = AddrPort(peer); err != nil {
		return c, err
	}
	if c.Local, err = AddrPort(local); err != nil {
		return c, err
	}
	if c.Cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil {
		return c, os.NewSyscallError("getsockopt", err)
	}
	if _, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err != nil {
		return c, fmt.Errorf("%w: %w", ErrNotConnected, os.NewSyscallError("getsockopt", err)) // a raw socket
	}
	c.Flow = flowOf(c.Peer, c.Local)
	if err := unix.SetNonblock(fd, true); err != nil {
		return c, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return c, os.NewSyscallError("setsockopt", err)
	}
	// Else a byte of urgent data would be there or not, by the way that it came.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1); err != nil {
		return c, os.NewSyscallError("setsockopt", err)
	}
	return c, nil
}

// Gone says whether the socket was closed meanwhile: the descriptor is closed,
// or another socket's.
func (c *Conn) Gone() bool {
	cookie, err := unix.GetsockoptUint64(c.FD, unix.SOL_SOCKET, unix.SO_COOKIE)
	return err != nil || cookie != c.Cookie
}

// OnOneDevice says whether the socket receives on one interface only: it is bound
// to that, or in a VRF, or its addresses are link-local.
func (c *Conn) OnOneDevice() bool {
	if c.Local.Addr().IsLinkLocalUnicast() || c.Peer.Addr().IsLinkLocalUnicast() {
		return true
	}
	return c.Device() != 0
}

// Device is the index of the interface that the socket is bound to, 0 for none.
func (c *Conn) Device() int {
	index, err := unix.GetsockoptInt(c.FD, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
	if err != nil {
		return 0 // closed meanwhile
	}
	return index
}

// HalfClosed says whether the peer has sent its last byte and this side has not
// (TCP_CLOSE_WAIT, include/net/tcp_states.h).
func (c *Conn) HalfClosed() bool {
	const closeWait = 8
	info, err := unix.GetsockoptTCPInfo(c.FD, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State == closeWait
}

// AddrPort reads a socket address; an IPv4 address inside IPv6 counts as IPv4,
// which is what is on the wire.
func AddrPort(sa unix.Sockaddr) (netip.AddrPort, error) {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)), nil
	default:
		return netip.AddrPort{}, fmt.Errorf("address of type %T: %w", sa, ErrNotSocket)
	}
}
