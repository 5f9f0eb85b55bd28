// Package tcplisten makes the listening sockets of servers whose connections are
// registered to rings.
package tcplisten

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrAddrInUse says that somebody else listens on the address.
var ErrAddrInUse = errors.New("address already in use")

// Backlog of connections that wait to be accepted; the kernel caps it at
// net.core.somaxconn.
const Backlog = 8192

// endpoint is what to listen on.
type endpoint struct {
	netip.AddrPort
	both bool // all addresses, of IPv6 and of IPv4
	any  bool // of whatever kinds the kernel has
}

// Listen makes a non-blocking listening socket. It is not net.Listen because
// that makes multipath TCP listeners, which a sockmap does not take, and
// because an event loop has no use for the runtime's poller.
//
// With share, sockets for which Spread was called may have the same
// address.
func Listen(addr string, share bool) (fd int, bound netip.AddrPort, err error) {
	e, err := parseAddr(addr)
	if err != nil {
		return -1, bound, fmt.Errorf("listen on %q: %w", addr, err)
	}
	fd, bound, err = e.listen(share)
	if e.any && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) { // no IPv6 here
		e = endpoint{AddrPort: netip.AddrPortFrom(netip.IPv4Unspecified(), e.Port())}
		fd, bound, err = e.listen(share)
	}
	if err != nil {
		return -1, bound, fmt.Errorf("listen on %s: %w", addr, explain(err))
	}
	return fd, bound, nil
}

// explain says what to do about an error of endpoint.listen.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%w; stop the other server or choose another port", ErrAddrInUse)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return errors.New("no interface here has that address")
	case errors.Is(err, unix.EACCES):
		return errors.New("ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE")
	}
	return err
}

func (e *endpoint) listen(share bool) (fd int, bound netip.AddrPort, err error) {
	family := unix.AF_INET
	if e.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, bound, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fd, bound, os.NewSyscallError("setsockopt", err)
	}
	if share {
		if err := allowSharing(fd); err != nil {
			return fd, bound, err
		}
	}
	sa, err := e.sockaddr()
	if err != nil {
		return fd, bound, err
	}
	if e.both {
		// Whatever net.ipv6.bindv6only says.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return fd, bound, os.NewSyscallError("setsockopt", err)
		}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return fd, bound, os.NewSyscallError("bind", err)
	}
	// With SO_REUSEADDR two sockets may be bound; only one may listen.
	if err := unix.Listen(fd, Backlog); err != nil {
		return fd, bound, os.NewSyscallError("listen", err)
	}
	got, err := unix.Getsockname(fd)
	if err != nil {
		return fd, bound, os.NewSyscallError("getsockname", err)
	}
	port := e.Port()
	switch got := got.(type) {
	case *unix.SockaddrInet4:
		port = uint16(got.Port)
	case *unix.SockaddrInet6:
		port = uint16(got.Port)
	}
	return fd, netip.AddrPortFrom(e.Addr(), port), nil
}

func (e *endpoint) sockaddr() (unix.Sockaddr, error) {
	if !e.Addr().Is6() {
		return &unix.SockaddrInet4{Port: int(e.Port()), Addr: e.Addr().As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: int(e.Port()), Addr: e.Addr().As16()}
	if zone := e.Addr().Zone(); zone != "" {
		ifi, err := net.InterfaceByName(zone)
		if err != nil {
			return nil, fmt.Errorf("zone %s: %w", zone, err)
		}
		sa.ZoneId = uint32(ifi.Index)
	}
	return sa, nil
}

// allowSharing lets further sockets of this user listen on the same address.
func allowSharing(fd int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
}

// Placer is a ring of several, to which connections are to come.
type Placer interface {
	// Queues is how many NIC queues belong to it.
	Queues() int
	// PlaceConnections has the kernel give a new connection to one of several
	// listening sockets, in the order of the rings.
	PlaceConnections(listeners ...int) error
}

// Spread makes a listening socket for each ring of several, and has the kernel
// give a new connection to the one whose ring its frames arrive at. The first
// is the server's, bound to addr, and the only one if that is of no use. It was
// bound alone, so that two servers on one address are still found out. The others
// are the caller's to close.
func Spread[R Placer](first int, addr netip.AddrPort, rings []R) (fds []int, err error) {
	fds = []int{first}
	if len(rings) == 1 {
		return fds, nil
	}
	for _, r := range rings {
		if r.Queues() == 0 {
			return fds, nil
		}
	}
	defer func() {
		if err != nil {
			for _, fd := range fds[1:] {
				unix.Close(fd)
			}
		}
	}()
	if err := allowSharing(first); err != nil {
		return fds, err
	}
	for range rings[1:] {
		fd, _, err := Listen(addr.String(), true)
		if err != nil {
			return fds, err
		}
		fds = append(fds, fd)
	}
	return fds, rings[0].PlaceConnections(fds...)
}

// parseAddr reads "ip:port", ":port" or "localhost:port". No address, and "[::]",
// mean all addresses of IPv6 and of IPv4, as in package net; "0.0.0.0" those of
// IPv4. Names other than localhost are refused: one name may be several
// addresses, and a server has one socket.
func parseAddr(addr string) (endpoint, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return endpoint{}, errors.New("want ADDRESS:PORT, with an IPv6 address in brackets")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return endpoint{}, fmt.Errorf("port %q is not a number up to 65535", port)
	}
	ip := netip.IPv6Unspecified()
	switch host {
	case "":
	case "localhost":
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	default:
		if ip, err = netip.ParseAddr(host); err != nil {
			return endpoint{}, fmt.Errorf("%q is not an IP address", host)
		}
		ip = ip.Unmap()
	}
	return endpoint{AddrPort: netip.AddrPortFrom(ip, uint16(n)), both: ip == netip.IPv6Unspecified(), any: host == ""}, nil
}
