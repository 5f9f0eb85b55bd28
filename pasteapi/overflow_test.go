package pasteapi_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// TestOverlapAfterOverflow fills the ring of deliveries while nobody polls, and
// then has segments arrive that reach back over bytes that came before, as
// retransmissions may: the application gets every byte once, the first one that
// came.
func TestOverlapAfterOverflow(t *testing.T) {
	l := newLab(t, netlab.Config{})
	pool := newPool(t, 64<<20)
	var port *pasteapi.Port
	var lfd int
	err := l.InServer(func() (err error) {
		if port, err = pasteapi.Open(context.Background(), pasteapi.Options{Pool: pool, Receive: pasteapi.ReceiveCopied}); err != nil {
			return err
		}
		if lfd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return errors.Join(unix.Bind(lfd, &unix.SockaddrInet4{Port: 7000}), unix.Listen(lfd, 1))
	})
	qt.Assert(t, qt.IsNil(err))
	defer func() { qt.Check(t, qt.IsNil(l.InServer(port.Close))) }()
	conn := dial(t, l, net.JoinHostPort(l.ServerIP4.String(), "7000"))
	defer conn.Close()
	fd, _, err := unix.Accept(lfd)
	qt.Assert(t, qt.IsNil(errors.Join(err, unix.Close(lfd))))
	defer unix.Close(fd)
	ring := port.Ring(0)
	qt.Assert(t, qt.IsNil(ring.Register(fd)))

	raw := newRawSender(t, l, conn)
	want := random(3<<20, 1)
	next := 0 // byte to send
	// send sends want[from:to], with other bytes in place of those sent before.
	send := func(from, to int) {
		t.Helper()
		b := bytes.Clone(want[from:to])
		for i := range max(0, min(next, to)-from) {
			b[i] ^= 0xff
		}
		qt.Assert(t, qt.IsNil(raw.send(noVLAN, raw.seq+uint32(from), b)))
		next = max(next, to)
	}
	arrived := func() {
		t.Helper()
		for end := time.Now().Add(3 * time.Minute); ; time.Sleep(time.Millisecond) {
			info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
			qt.Assert(t, qt.IsNil(err))
			if info.Bytes_received >= uint64(next) {
				return
			}
			qt.Assert(t, qt.IsTrue(time.Now().Before(end)), qt.Commentf("%d of %d bytes", info.Bytes_received, next))
		}
	}
	overflowed := func() bool { return port.Status().Tickets["overflow"] > 0 }
	for !overflowed() {
		qt.Assert(t, qt.IsTrue(next < 2<<20), qt.Commentf("%v", next))
		for range 50 {
			send(next, next+257) // which takes 768 in the ring
		}
		arrived()
	}
	for range 10 {
		send(next-500, next+500)
		arrived()
		send(next-1, next+100)
		arrived()
		send(next, next+100)
		arrived()
	}
	var got []byte
	for end := time.Now().Add(3 * time.Minute); len(got) < next; {
		_, err := ring.Poll(time.Second)
		qt.Assert(t, qt.IsNil(err))
		for seg := range ring.Segments() {
			qt.Assert(t, qt.IsFalse(seg.Closed()), qt.Commentf("closed: %v, after %d of %d bytes", seg.Cause(), len(got), next))
			got = append(got, seg.Payload()...)
		}
		qt.Assert(t, qt.IsTrue(time.Now().Before(end)), qt.Commentf("%d of %d bytes", len(got), next))
	}
	qt.Assert(t, qt.IsTrue(bytes.Equal(got, want[:next])))
	qt.Assert(t, qt.IsNil(ring.Unregister(fd)))
}
