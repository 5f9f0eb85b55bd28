// Package contender holds the socket servers that PASTE is measured against:
// what a good engineer would write for the same small job with the kernel's
// ordinary interfaces. They share the request parser, the log and its format,
// the flush instruction and the policy for a full log with each other and with
// `pastectl serve http`; they differ in how bytes come and go.
//
//   - epoll: one thread, level-triggered, one read and one write per request. A body is
//     read into a cache-warm buffer and stored once with non-temporal stores.
//   - io_uring: one thread, multishot accept and receive into provided buffers. Where
//     messages fit a frame these lie in the pool, persisted in place, and those that
//     hold bodies are exchanged for fresh ones. Else they fit the message, stay warm, and
//     bodies are stored as epoll's. The replies of a batch leave in one system call.
//   - go-net: package net, a goroutine per connection; go-net-paste is the same program
//     on package ringnet.
//   - net-http: net/http over package net, and net-http-paste over package ringnet.
//
// Bodies that arrive in one batch share one commit of the log, and no reply to a
// body is sent before that commit.
package contender

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/pastenet/paste/pmem"
	"golang.org/x/sys/unix"
)

// Kind is a contender's name.
type Kind string

// The contenders.
const (
	Epoll   Kind = "epoll"
	IOUring Kind = "io_uring"
	GoNet   Kind = "go-net"

	GoNetPaste   Kind = "go-net-paste"
	NetHTTP      Kind = "net-http"
	NetHTTPPaste Kind = "net-http-paste"
)

// Kinds lists the contenders.
func Kinds() []Kind { return []Kind{Epoll, IOUring, GoNet} }

// Adapted lists those that show what an unchanged Go program gains by package ringnet.
func Adapted() []Kind { return []Kind{GoNetPaste, NetHTTP, NetHTTPPaste} }

// Raw is what a server does with a stream of bytes that is not HTTP.
type Raw string

const (
	NotRaw Raw = ""     // HTTP
	Echo   Raw = "echo" // sends back whatever comes
	Sink   Raw = "sink" // reads and forgets
)

// Config of a server.
type Config struct {
	Kind Kind
	Addr netip.AddrPort
	// ResponseBytes is the length of the body that answers a GET; of what counts as
	// a request, if Raw.
	ResponseBytes int
	Raw           Raw
	// MessageBytes is the longest message to be expected, 0 if that is not known:
	// receive buffers shall fit it.
	MessageBytes int
	// Pool takes the bodies of POST and PUT. Nil forgets them; IOUring then
	// makes a pool in memory for its receive buffers.
	Pool *pmem.Pool
	// BusyPoll never sleeps (epoll and io_uring).
	BusyPoll bool
	// Other serves, in place of one of ours, a Kind that is not ours.
	Other func(ctx context.Context, cfg *Config) error
	// Ready is told the address that is listened on.
	Ready func(netip.AddrPort)
	// Stats, if set, is kept up to date.
	Stats *Stats
}

// Stats count a server's work. They may be read at any time.
type Stats struct {
	Requests atomic.Uint64
	Syscalls atomic.Uint64 // not counted by go-net, whose runtime makes them
	Truncate atomic.Uint64 // times that the log was full
}

// bodyLimit is the largest body accepted, in bytes.
const bodyLimit = 64 << 20

// headerRoom is more than the header of a benchmark's request, in bytes.
const headerRoom = 512

// Fitting is the length of a buffer that a message and its header fit into, at least so
// long.
func (c *Config) Fitting(least int) int {
	return max(least, (c.MessageBytes+headerRoom+4095)&^4095)
}

// Run serves until ctx ends, which is not an error.
func Run(ctx context.Context, cfg Config) error {
	if cfg.ResponseBytes < 0 {
		return fmt.Errorf("serve %s: response of %d bytes", cfg.Kind, cfg.ResponseBytes)
	}
	if cfg.Stats == nil {
		cfg.Stats = new(Stats)
	}
	if cfg.Ready == nil {
		cfg.Ready = func(netip.AddrPort) {}
	}
	run := cfg.Other
	switch cfg.Kind {
	case Epoll:
		run = runEpoll
	case IOUring:
		run = runUring
	case GoNet, GoNetPaste:
		run = runGoNet
	case NetHTTP, NetHTTPPaste:
		run = runNetHTTP
	case Mmsg, MmsgGRO:
		run = runMmsg
	case GoUDP:
		run = runGoUDP
	}
	err := errors.New("unknown contender")
	if run != nil {
		err = run(ctx, &cfg)
	}
	if err != nil {
		return fmt.Errorf("serve %s: %w", cfg.Kind, err)
	}
	return nil
}

// Listen makes a non-blocking listening socket. Accepted sockets inherit
// TCP_NODELAY.
func Listen(addr netip.AddrPort) (int, netip.AddrPort, error) {
	family, sa := unix.AF_INET, unix.Sockaddr(nil)
	if a := addr.Addr(); a.Unmap().Is4() {
		sa = &unix.SockaddrInet4{Port: int(addr.Port()), Addr: a.Unmap().As4()}
	} else {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(addr.Port()), Addr: a.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, addr, fmt.Errorf("listen on %s: socket: %w", addr, err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil {
		err = unix.Listen(fd, 4096)
	}
	if err == nil && addr.Port() == 0 {
		var got unix.Sockaddr
		if got, err = unix.Getsockname(fd); err == nil {
			switch got := got.(type) {
			case *unix.SockaddrInet4:
				addr = netip.AddrPortFrom(addr.Addr(), uint16(got.Port))
			case *unix.SockaddrInet6:
				addr = netip.AddrPortFrom(addr.Addr(), uint16(got.Port))
			}
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, addr, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return fd, addr, nil
}

// waker is an eventfd that becomes readable when ctx ends, to get a thread out
// of the kernel.
func waker(ctx context.Context) (fd int, release func(), err error) {
	fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, nil, fmt.Errorf("create eventfd: %w", err)
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		_, _ = unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	return fd, func() {
		if !stop() {
			<-done
		}
		_ = unix.Close(fd)
	}, nil
}
