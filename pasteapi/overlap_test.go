package pasteapi_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// TestOverlapThenUnregister has segments arrive that reach back over bytes that
// came before, as retransmissions may, and takes the connection from the ring
// then: what read(2) returns begins where the slots ended.
func TestOverlapThenUnregister(t *testing.T) {
	for name, o := range map[string]pasteapi.Options{
		"by ticket": {Copybreak: -1},
		"by copy":   {Copybreak: 1 << 16},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, netlab.Config{})
			o.NIC, o.Pool = l.ServerDev, newPool(t, 64<<20)
			var port *pasteapi.Port
			var lfd int
			err := l.InServer(func() (err error) {
				if port, err = pasteapi.Open(context.Background(), o); err != nil {
					return err
				}
				if lfd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
					return err
				}
				return errors.Join(unix.Bind(lfd, &unix.SockaddrInet4{Port: 7000}), unix.Listen(lfd, 1), port.Steer(7000))
			})
			qt.Assert(t, qt.IsNil(err))
			defer func() { qt.Check(t, qt.IsNil(l.InServer(port.Close))) }()
			conn := dial(t, l, net.JoinHostPort(l.ServerIP4.String(), "7000"))
			defer conn.Close()
			fd, _, err := unix.Accept(lfd)
			qt.Assert(t, qt.IsNil(errors.Join(err, unix.Close(lfd))))
			socket := os.NewFile(uintptr(fd), "connection")
			defer socket.Close()
			ring := port.Ring(0)
			qt.Assert(t, qt.IsNil(ring.Register(fd)))

			raw := newRawSender(t, l, conn)
			want := random(30_000, 1)
			var got []byte
			receive := func(from, to int) {
				t.Helper()
				qt.Assert(t, qt.IsNil(raw.send(noVLAN, raw.seq+uint32(from), want[from:to])))
				for end := time.Now().Add(3 * time.Minute); len(got) < to; {
					_, err := ring.Poll(time.Second)
					qt.Assert(t, qt.IsNil(err))
					for seg := range ring.Segments() {
						got = append(got, seg.Payload()...)
					}
					qt.Assert(t, qt.IsTrue(time.Now().Before(end)), qt.Commentf("%d of %d bytes", len(got), to))
				}
				qt.Assert(t, qt.HasLen(got, to))
			}
			receive(0, 1000)
			receive(600, 2000)
			receive(1999, 2100)
			receive(1000, 2400)
			qt.Assert(t, qt.IsNil(ring.Unregister(fd)))

			// The client's socket sends it all, as it has not sent any of it yet.
			_, err = conn.Write(want)
			qt.Assert(t, qt.IsNil(errors.Join(err, conn.CloseWrite())))
			rest, err := io.ReadAll(socket)
			qt.Assert(t, qt.IsNil(err))
			got = append(got, rest...)
			qt.Check(t, qt.HasLen(got, len(want)))
			qt.Check(t, qt.IsTrue(bytes.Equal(got, want)))
		})
	}
}
