package pasteapi_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/testwait"
	"github.com/pastenet/paste/pasteapi"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ending is a way in which a connection ends. act is called when the ring has the first
// bytes, and must not send anything that the peer of it could see before lastWords.
type ending struct {
	name   string
	act    func(t *testing.T, l *netlab.Lab, r *pasteapi.Ring, fd int, peer *net.TCPConn)
	last   string // what comes between the first bytes and the end
	causes []error
}

const firstWords, lastWords = "first words, ", "last words"

var endings = []ending{
	{"fin", func(t *testing.T, _ *netlab.Lab, _ *pasteapi.Ring, _ int, peer *net.TCPConn) {
		qt.Assert(t, qt.IsNil(peer.Close()))
	}, "", []error{nil}},
	{"fin with data", func(t *testing.T, _ *netlab.Lab, _ *pasteapi.Ring, _ int, peer *net.TCPConn) {
		corked(t, peer, 1)
		_, err := peer.Write([]byte(lastWords))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(peer.Close()))
	}, lastWords, []error{nil}},
	{"half-close", func(t *testing.T, _ *netlab.Lab, _ *pasteapi.Ring, _ int, peer *net.TCPConn) {
		_, err := peer.Write([]byte(lastWords))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(peer.CloseWrite()))
	}, lastWords, []error{nil}},
	{"reset", func(t *testing.T, _ *netlab.Lab, _ *pasteapi.Ring, _ int, peer *net.TCPConn) {
		qt.Assert(t, qt.IsNil(peer.SetLinger(0)))
		qt.Assert(t, qt.IsNil(peer.Close()))
	}, "", []error{unix.ECONNRESET}},
	{"local shutdown", func(t *testing.T, _ *netlab.Lab, _ *pasteapi.Ring, fd int, _ *net.TCPConn) {
		qt.Assert(t, qt.IsNil(unix.Shutdown(fd, unix.SHUT_RDWR)))
	}, "", []error{nil}},
	{"local end of sending", func(t *testing.T, _ *netlab.Lab, _ *pasteapi.Ring, fd int, peer *net.TCPConn) {
		qt.Assert(t, qt.IsNil(unix.Shutdown(fd, unix.SHUT_WR)))
		_, err := peer.Write([]byte(lastWords))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(peer.Close()))
	}, lastWords, []error{nil}},
	{"TCP_USER_TIMEOUT", func(t *testing.T, l *netlab.Lab, r *pasteapi.Ring, fd int, _ *net.TCPConn) {
		qt.Assert(t, qt.IsNil(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 500)))
		cut(t, l)
		qt.Assert(t, qt.IsNil(r.Send(fd, []byte("are you there?"))))
	}, "", []error{unix.ETIMEDOUT, unix.EHOSTUNREACH}},
	{"keep-alive", func(t *testing.T, l *netlab.Lab, _ *pasteapi.Ring, fd int, _ *net.TCPConn) {
		for opt, v := range map[int]int{unix.TCP_KEEPIDLE: 1, unix.TCP_KEEPINTVL: 1, unix.TCP_KEEPCNT: 1} {
			qt.Assert(t, qt.IsNil(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, opt, v)))
		}
		qt.Assert(t, qt.IsNil(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)))
		cut(t, l)
	}, "", []error{unix.ETIMEDOUT, unix.EHOSTUNREACH}},
}

// corked has what is written wait for more, or the end.
func corked(t *testing.T, c *net.TCPConn, yes int) {
	t.Helper()
	raw, err := c.SyscallConn()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, yes) })))
	qt.Assert(t, qt.IsNil(err))
}

// cut takes the client from the network, for the rest of the lab.
func cut(t *testing.T, l *netlab.Lab) {
	t.Helper()
	qt.Assert(t, qt.IsNil(l.InClient(func() error {
		link, err := netlink.LinkByName(l.ClientDev)
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(link)
	})))
}

// TestCloses: every kind of end is told once, behind the last byte, with its cause, by
// each way in.
func TestCloses(t *testing.T) {
	for _, mode := range []pasteapi.ReceiveMode{pasteapi.ReceiveAuto, pasteapi.ReceiveCopied, pasteapi.ReceiveSteered} {
		for _, e := range endings {
			t.Run(mode.String()+"/"+e.name, func(t *testing.T) {
				l := newLab(t, netlab.Config{})
				qt.Assert(t, qt.IsNil(l.InServer(func() error { closes(t, l, mode, e); return nil })))
			})
		}
	}
}

func closes(t *testing.T, l *netlab.Lab, mode pasteapi.ReceiveMode, e ending) {
	o := pasteapi.Options{NIC: l.ServerDev, Pool: newPool(t, 32<<20), Receive: mode}
	if mode == pasteapi.ReceiveSteered {
		o.Copybreak = -1
	}
	port, err := pasteapi.Open(context.Background(), o)
	qt.Assert(t, qt.IsNil(err))
	defer func() { qt.Check(t, qt.IsNil(port.Close())) }()
	listener, err := net.Listen("tcp", net.JoinHostPort(l.ServerIP4.String(), "7000"))
	qt.Assert(t, qt.IsNil(err))
	defer listener.Close()
	qt.Assert(t, qt.IsNil(port.Steer(7000)))
	peer := dial(t, l, listener.Addr().String())
	defer peer.Close()
	c, err := listener.Accept()
	qt.Assert(t, qt.IsNil(err))
	defer c.Close()
	r := port.Ring(0)
	fd, err := r.RegisterConn(c.(*net.TCPConn))
	qt.Assert(t, qt.IsNil(err))
	_, err = peer.Write([]byte(firstWords))
	qt.Assert(t, qt.IsNil(err))

	got, ends := "", 0
	poll := func() {
		_, err := r.Poll(1e6)
		qt.Assert(t, qt.IsNil(err))
		for seg := range r.Segments() {
			qt.Check(t, qt.Equals(ends, 0), qt.Commentf("something behind the end"))
			if !seg.Closed() {
				got += string(seg.Payload())
				continue
			}
			ends++
			known := false
			for _, cause := range e.causes {
				known = known || errors.Is(seg.Cause(), cause)
			}
			qt.Check(t, qt.IsTrue(known), qt.Commentf("cause: %v", seg.Cause()))
		}
	}
	testwait.Until(t, "the first words", func() bool { poll(); return got == firstWords })
	e.act(t, l, r, fd, peer)
	testwait.Until(t, "the end", func() bool { poll(); return ends > 0 })
	for range 100 {
		poll()
	}
	qt.Check(t, qt.Equals(got, firstWords+e.last))
	qt.Check(t, qt.Equals(ends, 1))
	qt.Check(t, qt.IsNil(r.Unregister(fd)))
}
