package netlab

import (
	"errors"
	"io"
	"testing"
	"time"
	"unsafe"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// What a client sends over a wire-like pair is cut and has its checksum when it leaves,
// also when the sender hands over much at once; over a plain pair neither.
func TestWire(t *testing.T) {
	for _, wire := range []bool{false, true} {
		l := newLab(t, Config{Wire: wire, MTU: 1500})
		ln, err := l.Server.Listen(t.Context(), "tcp", l.ServerIP4.String()+":0")
		qt.Assert(t, qt.IsNil(err))
		defer ln.Close()
		received := make(chan struct{})
		go func() {
			defer close(received)
			if c, err := ln.Accept(); err == nil {
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}
		}()
		tap := tapOf(t, l)
		c, err := l.Client.DialContext(t.Context(), "tcp", ln.Addr().String())
		qt.Assert(t, qt.IsNil(err))
		_, err = c.Write(make([]byte, 4<<20))
		qt.Assert(t, qt.IsNil(err))
		long, incomplete := 0, 0
		for range 10 {
			length, partial := nextPayload(t, tap)
			if length > 1514 {
				long++
			}
			if partial {
				incomplete++
			}
		}
		qt.Check(t, qt.Equals(long == 0, wire), qt.Commentf("%d long frames", long))
		qt.Check(t, qt.Equals(incomplete == 0, wire), qt.Commentf("%d frames without a checksum", incomplete))
		qt.Check(t, qt.IsNil(c.Close()))
		<-received // before the pair is gone, and the end of the stream with it
	}
}

// tapOf is a packet socket that sees what leaves the client's end.
func tapOf(t *testing.T, l *Lab) (fd int) {
	t.Helper()
	qt.Assert(t, qt.IsNil(l.Client.Do(func() (err error) {
		const all = 0x0300 // ETH_P_ALL in network order, on a little-endian machine
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
		return err
	})))
	t.Cleanup(func() { unix.Close(fd) })
	qt.Assert(t, qt.IsNil(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1)))
	patience := unix.NsecToTimeval(int64(5 * time.Minute))
	qt.Assert(t, qt.IsNil(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience)))
	return fd
}

// nextPayload is the next outgoing frame that is longer than an empty segment.
func nextPayload(t *testing.T, fd int) (length int, partial bool) {
	t.Helper()
	buf, control := make([]byte, 128<<10), make([]byte, 256)
	for {
		n, cn, _, from, err := unix.Recvmsg(fd, buf, control, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		qt.Assert(t, qt.IsNil(err))
		sa, ok := from.(*unix.SockaddrLinklayer)
		if !ok || sa.Pkttype != unix.PACKET_OUTGOING || n < 200 {
			continue
		}
		messages, err := unix.ParseSocketControlMessage(control[:cn])
		qt.Assert(t, qt.IsNil(err))
		for _, m := range messages {
			if m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA {
				status := *(*uint32)(unsafe.Pointer(&m.Data[0])) // struct tpacket_auxdata
				return n, status&unix.TP_STATUS_CSUMNOTREADY != 0
			}
		}
		t.Fatal("no auxiliary data")
	}
}
