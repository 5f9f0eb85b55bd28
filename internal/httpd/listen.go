package httpd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrAddrInUse says that somebody else listens on the address.
var ErrAddrInUse = errors.New("address already in use")

// backlog of connections that wait to be accepted; the kernel caps it at
// net.core.somaxconn.
const backlog = 8192

// listen makes a non-blocking listening socket. It is not net.Listen because
// that makes multipath TCP listeners, which a sockmap does not take, and
// because an event loop has no use for the runtime's poller.
//
// With share, sockets for which allowSharing was called may have the same
// address.
func listen(addr string, share bool) (fd int, bound netip.AddrPort, err error) {
	ap, err := parseAddr(addr)
	if err != nil {
		return -1, bound, fmt.Errorf("listen on %q: %w", addr, err)
	}
	defer func() {
		if err != nil {
			if fd >= 0 {
				unix.Close(fd)
			}
			fd, err = -1, fmt.Errorf("listen on %s: %w", addr, err)
		}
	}()
	family := unix.AF_INET
	if ap.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, bound, os.NewSyscallError("socket", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fd, bound, os.NewSyscallError("setsockopt", err)
	}
	if share {
		if err := allowSharing(fd); err != nil {
			return fd, bound, err
		}
	}
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(ap.Port())}
	if family == unix.AF_INET6 {
		sa6 := &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
		if zone := ap.Addr().Zone(); zone != "" {
			ifi, err := net.InterfaceByName(zone)
			if err != nil {
				return fd, bound, fmt.Errorf("zone %s: %w", zone, err)
			}
			sa6.ZoneId = uint32(ifi.Index)
		}
		sa = sa6
	} else {
		sa.(*unix.SockaddrInet4).Addr = ap.Addr().As4()
	}
	switch err := unix.Bind(fd, sa); err {
	case nil:
	case unix.EADDRINUSE:
		return fd, bound, fmt.Errorf("%w; stop the other server or choose another port", ErrAddrInUse)
	case unix.EADDRNOTAVAIL:
		return fd, bound, errors.New("no interface here has that address")
	case unix.EACCES:
		return fd, bound, errors.New("ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE")
	default:
		return fd, bound, os.NewSyscallError("bind", err)
	}
	// With SO_REUSEADDR two sockets may be bound; only one may listen.
	switch err := unix.Listen(fd, backlog); err {
	case nil:
	case unix.EADDRINUSE:
		return fd, bound, fmt.Errorf("%w; stop the other server or choose another port", ErrAddrInUse)
	default:
		return fd, bound, os.NewSyscallError("listen", err)
	}
	got, err := unix.Getsockname(fd)
	if err != nil {
		return fd, bound, os.NewSyscallError("getsockname", err)
	}
	switch got := got.(type) {
	case *unix.SockaddrInet4:
		ap = netip.AddrPortFrom(ap.Addr(), uint16(got.Port))
	case *unix.SockaddrInet6:
		ap = netip.AddrPortFrom(ap.Addr(), uint16(got.Port))
	}
	return fd, ap, nil
}

// allowSharing lets further sockets of this user listen on the same address.
func allowSharing(fd int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
}

// spread makes a listening socket for each ring of several, and has the kernel
// give a new connection to the one whose ring its frames arrive at. The first
// is the server's, and the only one if that is of no use. It was bound alone, so
// that two servers on one address are still found out.
func (s *Server) spread(rings []Ring) (fds []int, err error) {
	fds = []int{s.fd}
	if len(rings) == 1 || slices.ContainsFunc(rings, func(r Ring) bool { return r.Queues() == 0 }) {
		return fds, nil
	}
	defer func() {
		if err != nil {
			for _, fd := range fds[1:] {
				unix.Close(fd)
			}
		}
	}()
	if err := allowSharing(s.fd); err != nil {
		return fds, err
	}
	for range rings[1:] {
		fd, _, err := listen(s.addr.String(), true)
		if err != nil {
			return fds, err
		}
		fds = append(fds, fd)
	}
	return fds, rings[0].PlaceConnections(fds...)
}

// parseAddr reads "ip:port", ":port" or "localhost:port". Other names are
// refused: one name may be several addresses, and a server has one socket.
func parseAddr(addr string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.AddrPort{}, errors.New("want ADDRESS:PORT, with an IPv6 address in brackets")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port %q is not a number up to 65535", port)
	}
	switch host {
	case "":
		return netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(n)), nil
	case "localhost":
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(n)), nil
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is not an IP address", host)
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), nil
}
