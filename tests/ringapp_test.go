package tests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
	"golang.org/x/sys/unix"
)

// ringApp is an application on one ring, in this process, in the lab's server
// namespace. By default it echoes.
type ringApp struct {
	// late makes it register a socket only when bytes wait in it.
	late bool
	// onData handles a slot instead of echoing it.
	onData func(a *ringApp, s *pasteapi.Slot) error
	// onClose may send a last word to a socket.
	onClose func(a *ringApp, fd int) error

	port     *pasteapi.Port
	ring     *pasteapi.Ring
	listener int
	addr     string
	stopping atomic.Bool
	calls    chan func()
	done     chan error
	ended    chan struct{}

	unregistered []int

	// Of the application's goroutine; look at them in do or after stop.
	causes []error // of closed connections
	errs   []error // ErrRingCorrupt
	after  int     // slots for descriptors that were closed already
}

// start opens a port on o and serves on addr until the test ends.
func (a *ringApp) start(t testing.TB, l *netlab.Lab, o pasteapi.Options, addr string) *ringApp {
	t.Helper()
	a.calls, a.done, a.ended, a.addr = make(chan func(), 1), make(chan error, 1), make(chan struct{}), addr
	started := make(chan error, 1)
	go func() {
		a.done <- l.InServer(func() error {
			err := a.open(o)
			started <- err
			if err != nil {
				return nil
			}
			defer close(a.ended)
			err = a.run()
			if err != nil {
				t.Errorf("ring application: %v", err)
			}
			return errors.Join(err, unix.Close(a.listener), a.port.Close())
		})
	}()
	qt.Assert(t, qt.IsNil(<-started))
	t.Cleanup(func() { a.stop(t) })
	return a
}

func (a *ringApp) stop(t testing.TB) {
	t.Helper()
	if !a.stopping.Swap(true) {
		a.ring.Wake()
		qt.Check(t, qt.IsNil(<-a.done))
	}
}

// do runs f on the application's goroutine, between two Polls, and waits.
func (a *ringApp) do(f func()) {
	ran := make(chan struct{})
	a.calls <- func() { f(); close(ran) }
	a.ring.Wake()
	select {
	case <-ran:
	case <-a.ended:
		panic("the application has ended")
	}
}

func (a *ringApp) open(o pasteapi.Options) error {
	ap, err := net.ResolveTCPAddr("tcp", a.addr)
	if err != nil {
		return err
	}
	if a.port, err = pasteapi.Open(context.Background(), o); err != nil {
		return err
	}
	a.ring = a.port.Ring(0)
	a.listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(
		unix.SetsockoptInt(a.listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(a.listener, &unix.SockaddrInet4{Port: ap.Port, Addr: [4]byte(ap.IP.To4())}),
		unix.Listen(a.listener, 4096),
		a.ring.Watch(a.listener),
		a.port.Steer(uint16(ap.Port)))
}

func (a *ringApp) run() error {
	for !a.stopping.Load() {
		timeout := time.Duration(-1)
		if len(a.unregistered) > 0 {
			timeout = time.Millisecond
		}
		_, err := a.ring.Poll(timeout)
		if errors.Is(err, pasteapi.ErrRingCorrupt) {
			// The other ring may be broken, too; the next Poll tells.
			a.errs = append(a.errs, err)
		} else if err != nil {
			return err
		} else if err := a.batch(); err != nil {
			return err
		}
		if len(a.ring.Ready()) > 0 {
			if err := a.accept(); err != nil {
				return err
			}
		}
		if err := a.registerLate(); err != nil {
			return err
		}
		select {
		case f := <-a.calls:
			f()
		default:
		}
	}
	return nil
}

func (a *ringApp) accept() error {
	for {
		fd, _, err := unix.Accept4(a.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return nil
		}
		if a.late {
			a.unregistered = append(a.unregistered, fd)
		} else if err := a.register(fd); err != nil {
			return err
		}
	}
}

func (a *ringApp) register(fd int) error {
	err := a.ring.Register(fd)
	if err != nil {
		unix.Close(fd)
		if errors.Is(err, pasteapi.ErrNotConnected) {
			return nil
		}
	}
	return err
}

func (a *ringApp) registerLate() error {
	waiting := a.unregistered
	a.unregistered = nil
	for _, fd := range waiting {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, _ := unix.Poll(p, 0); n == 0 {
			a.unregistered = append(a.unregistered, fd)
		} else if err := a.register(fd); err != nil {
			return err
		}
	}
	return nil
}

func (a *ringApp) batch() error {
	rx := a.ring.RX()
	for !rx.Empty() {
		s := rx.Slot(rx.Head)
		if s.Doff() == int(s.Len) {
			cause := a.ring.CloseCause(s.Fd())
			if errors.Is(cause, pasteapi.ErrNotRegistered) {
				a.after++
			} else {
				a.causes = append(a.causes, cause)
				if a.onClose != nil && cause == nil {
					if err := a.onClose(a, s.Fd()); err != nil {
						return err
					}
				}
				if err := a.ring.CloseAfterSend(s.Fd()); err != nil {
					return err
				}
			}
		} else {
			handle := a.onData
			if handle == nil {
				handle = (*ringApp).echo
			}
			if err := handle(a, s); err != nil {
				return err
			}
		}
		rx.Head = rx.Next(rx.Head)
		rx.Cur = rx.Head
	}
	return nil
}

// room makes room for a TX slot.
func (a *ringApp) room() (*pasteapi.Slot, error) {
	tx := a.ring.TX()
	if tx.Empty() {
		if err := a.ring.TxSync(); err != nil {
			return nil, err
		}
	}
	return tx.Slot(tx.Head), nil
}

func (a *ringApp) push() {
	tx := a.ring.TX()
	tx.Head = tx.Next(tx.Head)
	tx.Cur = tx.Head
}

// send copies b, which fits one slot, into the ring.
func (a *ringApp) send(fd int, b []byte) error {
	out, err := a.room()
	if err != nil {
		return err
	}
	out.SetFd(fd)
	out.SetDoff(0)
	out.Len = uint16(copy(a.ring.TX().Buf(out), b))
	a.push()
	return nil
}

// echo sends a payload back from the buffer where it was received.
func (a *ringApp) echo(in *pasteapi.Slot) error {
	out, err := a.room()
	if err != nil {
		return err
	}
	in.BufIdx, out.BufIdx = out.BufIdx, in.BufIdx
	in.Flags |= pasteapi.NS_BUF_CHANGED
	out.Flags |= pasteapi.NS_BUF_CHANGED
	out.Ptr, out.Len = in.Ptr, in.Len
	a.push()
	return nil
}

// newPool is a pool in memory of which every frame must be back at the end.
func newPool(t testing.TB, size int64) *pmem.Pool {
	t.Helper()
	p, err := pmem.NewMemory("paste-tests", pmem.Options{Size: size})
	qt.Assert(t, qt.IsNil(err))
	free := p.Free()
	t.Cleanup(func() {
		qt.Check(t, qt.Equals(p.Free(), free), qt.Commentf("frames leaked"))
		qt.Check(t, qt.Equals(p.Misuses(), 0))
		qt.Check(t, qt.IsNil(p.Close()))
	})
	return p
}

// startEcho runs the usual echo application on port 7000 of the lab's NIC.
func startEcho(t testing.TB, l *netlab.Lab) *ringApp {
	t.Helper()
	return startEchoCopybreak(t, l, 0)
}

func startEchoCopybreak(t testing.TB, l *netlab.Lab, copybreak int) *ringApp {
	t.Helper()
	return new(ringApp).start(t, l, pasteapi.Options{NIC: l.ServerDev, Pool: newPool(t, 64<<20), Copybreak: copybreak},
		net.JoinHostPort(l.ServerIP4.String(), "7000"))
}

// roundTrip sends data in pieces, ends the stream, and expects all of it back.
func roundTrip(c *net.TCPConn, data []byte, piece int) error {
	defer c.Close()
	sent := make(chan error, 1)
	go func() {
		for rest := data; len(rest) > 0; {
			n := min(piece, len(rest))
			if _, err := c.Write(rest[:n]); err != nil {
				sent <- fmt.Errorf("send: %w", err)
				return
			}
			rest = rest[n:]
		}
		sent <- c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err = errors.Join(err, <-sent); err != nil {
		return err
	}
	if !bytes.Equal(got, data) {
		return fmt.Errorf("%d bytes came back of %d, and they differ", len(got), len(data))
	}
	return nil
}

// tripFrom dials and does a round trip.
func tripFrom(l *netlab.Lab, addr string, data []byte, piece int) error {
	c, err := tryDial(l, addr)
	if err != nil {
		return err
	}
	return roundTrip(c, data, piece)
}
