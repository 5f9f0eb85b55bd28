package uring

import (
	"bytes"
	"testing"
	"unsafe"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

func TestMultishotRecvRecycleAndRearm(t *testing.T) {
	eachVariant(t, func(t *testing.T, opt Options) {
		r := newRing(t, 8, opt)
		tx, rx := socketPair(t)
		const n, size = 4, 64
		m := memory(t, n*size)
		b, err := r.RegisterBufRing(7, n)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(b.Entries(), n))
		add := func(bid uint16) { b.Add(unsafe.Pointer(&m[int(bid)*size]), size, bid) }
		for i := range uint16(n) {
			add(i)
		}
		b.Advance()
		arm := func() {
			e := r.GetSQE()
			e.RecvMultishot(rx, b.Group(), 0)
			e.SetUserData(99)
			_, err := r.Submit()
			qt.Assert(t, qt.IsNil(err))
		}
		arm()

		// Far more messages than buffers, each buffer given back at once.
		want := make([]byte, size)
		for i := range 3 * n {
			for j := range want {
				want[j] = byte(i)
			}
			_, err := unix.Write(tx, want)
			qt.Assert(t, qt.IsNil(err))
			c := next(t, r)
			qt.Assert(t, qt.Equals(c.Res, size))
			qt.Assert(t, qt.Equals(c.UserData, 99))
			qt.Assert(t, qt.IsTrue(c.More()))
			qt.Assert(t, qt.IsTrue(c.Flags&CQEBuffer != 0))
			bid := c.BufferID()
			qt.Assert(t, qt.IsTrue(bytes.Equal(m[int(bid)*size:(int(bid)+1)*size], want)))
			add(bid)
			b.Advance()
		}

		// Nothing given back: the group runs dry, the operation ends, and
		// re-arming it after giving back delivers the rest.
		_, err = unix.Write(tx, make([]byte, (n+1)*size))
		qt.Assert(t, qt.IsNil(err))
		var held []uint16
		for {
			c := next(t, r)
			if c.Res < 0 {
				qt.Assert(t, qt.Equals(unix.Errno(-c.Res), unix.ENOBUFS))
				qt.Assert(t, qt.IsFalse(c.More()))
				break
			}
			held = append(held, c.BufferID())
		}
		qt.Assert(t, qt.HasLen(held, n))
		for _, bid := range held {
			add(bid)
		}
		b.Advance()
		arm()
		qt.Assert(t, qt.Equals(next(t, r).Res, size))

		// End of stream ends it too.
		qt.Assert(t, qt.IsNil(unix.Shutdown(tx, unix.SHUT_WR)))
		c := next(t, r)
		qt.Assert(t, qt.Equals(c.Res, 0))
		qt.Assert(t, qt.IsFalse(c.More()))
	})
}

func TestAcceptMultishot(t *testing.T) {
	r := newRing(t, 8, Options{})
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	qt.Assert(t, qt.IsNil(err))
	defer unix.Close(l)
	qt.Assert(t, qt.IsNil(unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})))
	qt.Assert(t, qt.IsNil(unix.Listen(l, 8)))
	addr, err := unix.Getsockname(l)
	qt.Assert(t, qt.IsNil(err))
	r.GetSQE().AcceptMultishot(l, unix.SOCK_CLOEXEC)
	for range 3 {
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		qt.Assert(t, qt.IsNil(err))
		defer unix.Close(c)
		qt.Assert(t, qt.IsNil(unix.Connect(c, addr)))
		got := next(t, r)
		qt.Assert(t, qt.IsTrue(got.Res >= 0), qt.Commentf("%v", got.Res))
		qt.Assert(t, qt.IsTrue(got.More()))
		r.GetSQE().CloseFD(int(got.Res))
		qt.Assert(t, qt.Equals(next(t, r).Res, 0))
	}
}

func TestPollAndCancel(t *testing.T) {
	r := newRing(t, 8, Options{})
	tx, rx := socketPair(t)
	e := r.GetSQE()
	e.PollAdd(rx, unix.POLLIN)
	e.SetUserData(1)
	_, err := r.Submit()
	qt.Assert(t, qt.IsNil(err))
	_, ok := r.PeekCQE()
	qt.Assert(t, qt.IsFalse(ok))
	_, err = unix.Write(tx, []byte("x"))
	qt.Assert(t, qt.IsNil(err))
	c := next(t, r)
	qt.Assert(t, qt.Equals(c.UserData, 1))
	qt.Assert(t, qt.IsTrue(c.Res&unix.POLLIN != 0))

	e = r.GetSQE()
	e.PollMultishot(rx, unix.POLLRDHUP)
	e.SetUserData(2)
	_, err = r.Submit()
	qt.Assert(t, qt.IsNil(err))
	e = r.GetSQE()
	e.Cancel(2)
	e.SetUserData(3)
	results := map[uint64]int32{}
	for len(results) < 2 {
		c := next(t, r)
		results[c.UserData] = c.Res
	}
	qt.Check(t, qt.Equals(results[3], 0))
	qt.Check(t, qt.Equals(unix.Errno(-results[2]), unix.ECANCELED))
}

func TestBufRingGeometryIsChecked(t *testing.T) {
	r := newRing(t, 8, Options{})
	for _, n := range []uint32{0, 3, 65536} {
		_, err := r.RegisterBufRing(0, n)
		qt.Check(t, qt.ErrorMatches(err, ".*not a power of two.*"))
	}
}
