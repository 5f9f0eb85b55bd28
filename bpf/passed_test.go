package bpf

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// TestForgetsPassedSockets: what the verdict remembers of sockets with bytes that
// wait in them, whether records of them were lost or not, ends with them.
func TestForgetsPassedSockets(t *testing.T) {
	// A ring of deliveries of one page, which nobody reads.
	tk, err := LoadTicket(TicketOptions{Tickets: 2})
	qt.Assert(t, qt.IsNil(err))
	defer tk.Close()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	defer ln.Close()
	passing := func() int { return int(atomic.LoadUint32(&tk.ctl.Passing)) }
	for range 3 {
		client, err := net.Dial("tcp4", ln.Addr().String())
		qt.Assert(t, qt.IsNil(err))
		defer client.Close()
		server, err := ln.Accept()
		qt.Assert(t, qt.IsNil(err))
		defer server.Close()
		raw, err := server.(*net.TCPConn).SyscallConn()
		qt.Assert(t, qt.IsNil(err))
		var cookie uint64
		qt.Assert(t, qt.IsNil(raw.Control(func(fd uintptr) {
			cookie, err = unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE)
			qt.Check(t, qt.IsNil(err))
			qt.Check(t, qt.IsNil(tk.AddSocket(cookie, int(fd))))
		})))
		// The first ones are copied into the ring; when there is no room for that any
		// more they wait in the socket, and at last there is none for the record.
		for end := time.Now().Add(3 * time.Minute); ; {
			_, err := client.Write(make([]byte, 300))
			qt.Assert(t, qt.IsNil(err))
			if o, lost := tk.Overflowed(cookie); lost {
				qt.Check(t, qt.IsTrue(int32(o.Next-o.First) > 0))
				break
			}
			qt.Assert(t, qt.IsTrue(time.Now().Before(end)))
		}
		qt.Check(t, qt.Equals(passing(), 1))
		qt.Assert(t, qt.IsNil(tk.RemoveSocket(cookie)))
		qt.Check(t, qt.Equals(passing(), 0))
		_, lost := tk.Overflowed(cookie)
		qt.Check(t, qt.IsFalse(lost))
	}
	var key uint64
	qt.Check(t, qt.IsNotNil(tk.objs.TicketPassed.NextKey(nil, &key)))
}
