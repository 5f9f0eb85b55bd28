package tests

import (
	"bytes"
	"net"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/ringapp"
	"github.com/pastenet/paste/internal/testwait"
	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// An application closes a descriptor that is registered, in the middle of its
// stream, and another connection gets its number. What the ring says of the number
// from then on is of that connection, byte for byte: nothing is left of the first.
func TestDescriptorOfAnother(t *testing.T) {
	for _, way := range waysIn {
		t.Run(way.name, func(t *testing.T) {
			l := newLab(t, netlab.Config{})
			o := way.options(l.ServerDev)
			o.Pool = newPool(t, 64<<20)
			streams := map[int][]byte{} // of the application's goroutine
			a := &ringapp.App{OnData: func(a *ringapp.App, s *pasteapi.Slot) error {
				streams[s.Fd()] = append(streams[s.Fd()], a.Ring.RX().Payload(s)...)
				return nil
			}}
			a.Start(t, l, o, net.JoinHostPort(l.ServerIP4.String(), "7000"))
			qt.Assert(t, qt.IsNil(a.Port.Steer(7002)))
			for round := range 10 {
				endFirst := endless(t, l, a.Addr)
				data := random(2<<20, int64(round))
				second, sent := acceptOther(t, l, data)
				var fd int
				testwait.Until(t, "the first connection's bytes", func() (some bool) {
					a.Do(func() {
						for n, b := range streams {
							if some = len(b) > 200_000; some {
								fd = n
							}
						}
					})
					return some
				})
				var err error
				a.Do(func() {
					if err = unix.Dup3(second, fd, unix.O_CLOEXEC); err == nil { // closes the first
						streams[fd] = nil
						err = a.Ring.Register(fd)
					}
				})
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.IsNil(unix.Close(second)))
				qt.Check(t, qt.IsNil(testwait.Receive(t, "the second connection's end", sent)))
				var got []byte
				testwait.Until(t, "the second connection's bytes", func() (all bool) {
					a.Do(func() { got, all = streams[fd], len(streams[fd]) >= len(data) })
					return all
				})
				qt.Check(t, qt.IsTrue(bytes.Equal(got, data)), qt.Commentf("round %d: %d bytes of %d", round, len(got), len(data)))
				endFirst()
				waitFor(t, func() bool { return a.Port.Status().Stats.Conns == 0 })
				a.Do(func() { clear(streams) })
			}
		})
	}
}

// endless dials, and sends until the connection is gone or the function that it
// returns is called.
func endless(t *testing.T, l *netlab.Lab, addr string) (end func()) {
	t.Helper()
	c := dial(t, l, addr)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		piece := bytes.Repeat([]byte{0xaa}, 10_000)
		for {
			if _, err := c.Write(piece); err != nil {
				return
			}
		}
	}()
	return func() {
		c.Close()
		testwait.Receive(t, "the end of an endless stream", gone)
	}
}

// acceptOther makes a connection that no ring knows, over which data is sent. The
// caller owns the descriptor.
func acceptOther(t *testing.T, l *netlab.Lab, data []byte) (fd int, sent <-chan error) {
	t.Helper()
	ln, err := l.Server.Listen(t.Context(), "tcp", net.JoinHostPort(l.ServerIP4.String(), "7002"))
	qt.Assert(t, qt.IsNil(err))
	defer ln.Close()
	client := dial(t, l, ln.Addr().String())
	conn, err := ln.Accept()
	qt.Assert(t, qt.IsNil(err))
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(raw.Control(func(p uintptr) { fd, err = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 0) })))
	qt.Assert(t, qt.IsNil(err))
	done := make(chan error, 1)
	go func() {
		_, err := client.Write(data)
		if err == nil {
			err = client.CloseWrite()
		}
		done <- err
	}()
	return fd, done
}
