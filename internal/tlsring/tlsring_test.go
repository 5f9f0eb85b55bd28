package tlsring_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/testwait"
	"github.com/pastenet/paste/internal/tlsring"
	"github.com/pastenet/paste/internal/tlsring/tlstest"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a server on a ring of plaintext, which sends back what it gets.
type echo struct {
	addr   string
	ring   *tlsring.Ring
	ln     int
	conns  map[int]bool
	open   atomic.Int32
	causes chan error // why connections ended
	ending atomic.Bool
}

func startEcho(t *testing.T) *echo {
	t.Helper()
	pool, err := pmem.NewMemory("tlsring-test", pmem.Options{Size: 16 << 20})
	qt.Assert(t, qt.IsNil(err))
	free := pool.Free()
	port, err := pasteapi.Open(context.Background(), pasteapi.Options{Pool: pool})
	qt.Assert(t, qt.IsNil(err))
	e := &echo{conns: map[int]bool{}, causes: make(chan error, 100)}
	e.ring, err = tlsring.New(port.Ring(0), pool, tlstest.Server())
	qt.Assert(t, qt.IsNil(err))
	e.ln, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(unix.Bind(e.ln, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})))
	qt.Assert(t, qt.IsNil(unix.Listen(e.ln, 128)))
	sa, err := unix.Getsockname(e.ln)
	qt.Assert(t, qt.IsNil(err))
	e.addr = (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*unix.SockaddrInet4).Port}).String()
	qt.Assert(t, qt.IsNil(e.ring.Watch(e.ln)))
	done := make(chan error, 1)
	go func() { done <- e.run() }()
	t.Cleanup(func() {
		e.ending.Store(true)
		e.ring.Wake()
		qt.Check(t, qt.IsNil(testwait.Receive(t, "the server's end", done)))
		qt.Check(t, qt.IsNil(e.ring.Close()))
		qt.Check(t, qt.IsNil(port.Close()))
		qt.Check(t, qt.Equals(pool.Free(), free))
		qt.Check(t, qt.IsNil(pool.Close()))
	})
	return e
}

func (e *echo) run() error {
	for !e.ending.Load() {
		if _, err := e.ring.Poll(-1); err != nil {
			return err
		}
		if err := e.batch(); err != nil {
			return err
		}
		for range e.ring.Ready() {
			for {
				fd, _, err := unix.Accept4(e.ln, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
				if err != nil {
					break
				}
				if err := e.ring.Register(fd); err != nil {
					return err
				}
				e.conns[fd] = true
				e.open.Add(1)
			}
		}
	}
	for fd := range e.conns {
		if err := e.end(fd); err != nil {
			return err
		}
	}
	return errors.Join(e.ring.Unwatch(e.ln), unix.Close(e.ln))
}

func (e *echo) batch() error {
	rx, tx := e.ring.RX(), e.ring.TX()
	for ; !rx.Empty(); rx.Head = rx.Next(rx.Head) {
		s := rx.Slot(rx.Head)
		if s.Closed() {
			cause := e.ring.CloseCause(s.Fd())
			e.causes <- cause
			if cause == nil {
				if err := e.ring.TxSync(); err != nil {
					return err
				}
				_ = e.ring.CloseWrite(s.Fd()) // it may be reset by now
			}
			if err := e.end(s.Fd()); err != nil {
				return err
			}
			continue
		}
		if tx.Space() == 0 {
			if err := e.ring.TxSync(); err != nil {
				return err
			}
		}
		out := tx.Slot(tx.Head)
		n := copy(tx.Buf(out), rx.Payload(s))
		out.SetFd(s.Fd())
		out.SetDoff(0)
		out.Len = uint16(n)
		tx.Head = tx.Next(tx.Head)
		tx.Cur = tx.Head
	}
	rx.Cur = rx.Head
	return nil
}

func (e *echo) end(fd int) error {
	delete(e.conns, fd)
	e.open.Add(-1)
	return errors.Join(e.ring.Unregister(fd), unix.Close(fd))
}

func (e *echo) dial(t *testing.T) *tls.Conn {
	t.Helper()
	c, err := net.Dial("tcp", e.addr)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { c.Close() })
	qt.Assert(t, qt.IsNil(c.SetDeadline(time.Now().Add(3*time.Minute))))
	return tls.Client(c, tlstest.Client())
}

// TestEcho: connections at the same time get back what they send, of any size, and
// their end.
func TestEcho(t *testing.T) {
	e := startEcho(t)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c := e.dial(t)
			for _, size := range []int{1, 100, 1983, 1984, 5000, 16384, 16385, 200_000} {
				sent := bytes.Repeat([]byte{byte(i), byte(size), byte(size >> 8), 7}, size/4+1)[:size]
				got := make([]byte, size)
				_, err := c.Write(sent)
				qt.Check(t, qt.IsNil(err))
				_, err = io.ReadFull(c, got)
				qt.Check(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(bytes.Equal(got, sent), true), qt.Commentf("%d bytes", size))
			}
			qt.Check(t, qt.IsNil(c.CloseWrite()))
			rest, err := io.ReadAll(c) // an orderly end, or there is an error
			qt.Check(t, qt.IsNil(err))
			qt.Check(t, qt.HasLen(rest, 0))
		}()
	}
	wg.Wait()
}

// TestEarlyData: what follows the handshake at once, more than is kept, is not lost.
func TestEarlyData(t *testing.T) {
	e := startEcho(t)
	sent := bytes.Repeat([]byte("early "), 1<<18)
	for range 5 {
		c := e.dial(t)
		go func() { _, _ = c.Write(sent) }() // what fails there, fails below
		got := make([]byte, len(sent))
		_, err := io.ReadFull(c, got)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(bytes.Equal(got, sent), true))
	}
}

// TestNotTLS: garbage instead of a handshake, or after it, ends the connection with an
// error, an unfinished handshake with the socket; and nothing stays behind.
func TestNotTLS(t *testing.T) {
	e := startEcho(t)
	cause := func() error { return testwait.Receive(t, "the end of a connection", e.causes) }

	c, err := net.Dial("tcp", e.addr)
	qt.Assert(t, qt.IsNil(err))
	_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	qt.Assert(t, qt.IsNil(err))
	text, err := io.ReadAll(c)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.StringContains(string(text), "use https"))
	qt.Check(t, qt.ErrorMatches(cause(), "tls: .*"))
	c.Close()

	c, err = net.Dial("tcp", e.addr)
	qt.Assert(t, qt.IsNil(err))
	_, err = c.Write(bytes.Repeat([]byte{0x16, 3, 1, 0, 4}, 1000))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.ErrorMatches(cause(), "tls: .*"))
	c.Close()

	c, err = net.Dial("tcp", e.addr)
	qt.Assert(t, qt.IsNil(err))
	_, err = c.Write([]byte{0x16, 3, 1})
	qt.Assert(t, qt.IsNil(err))
	c.Close()
	qt.Check(t, qt.IsNotNil(cause()))

	good := e.dial(t)
	qt.Assert(t, qt.IsNil(good.Handshake()))
	_, err = good.NetConn().Write([]byte{0x17, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.ErrorMatches(cause(), "tls: .*bad record MAC"))
	_, err = io.ReadAll(good)
	qt.Check(t, qt.ErrorMatches(err, ".*bad record MAC"))

	unfinished, err := net.Dial("tcp", e.addr)
	qt.Assert(t, qt.IsNil(err))
	defer unfinished.Close()
	testwait.Until(t, "the connection is accepted", func() bool { return e.open.Load() == 1 })
}
