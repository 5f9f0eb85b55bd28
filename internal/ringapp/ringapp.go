// Package ringapp is an application on a ring as tests want one: it echoes or does
// what it is told, in the test's process, and what it has seen can be looked at.
package ringapp

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/testwait"
	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// App is an application on one ring, in this process, in the lab's server
// namespace. By default it echoes.
type App struct {
	// Late makes it register a socket only when bytes wait in it.
	Late bool
	// OnData handles a slot instead of echoing it.
	OnData func(a *App, s *pasteapi.Slot) error
	// OnClose may send a last word to a socket.
	OnClose func(a *App, fd int) error

	Port *pasteapi.Port
	Ring *pasteapi.Ring
	Addr string

	// Counts are of the application's goroutine; look at them in Do or after Stop.
	Counts

	owned        bool // the port is ours to close
	listener     int
	unregistered []int
	stopping     atomic.Bool
	calls        chan func()
	done         chan error
	ended        chan struct{}
}

// Counts is what an App has seen.
type Counts struct {
	Accepted int
	Copied   uint64  // bytes that came by a copy
	Causes   []error // of closed connections
	Errs     []error // ErrRingCorrupt
	After    int     // slots for descriptors that were closed already
}

// Start opens a port on o and serves on addr until the test ends. It returns a.
func (a *App) Start(t testing.TB, l *netlab.Lab, o pasteapi.Options, addr string) *App {
	t.Helper()
	return a.start(t, l, addr, func() (err error) {
		a.owned = true
		if a.Port, err = pasteapi.Open(context.Background(), o); err == nil {
			a.Ring = a.Port.Ring(0)
		}
		return err
	})
}

// StartRing serves on one ring of a port that was opened in the lab's server
// namespace. The caller stops it before he closes the port. It returns a.
func (a *App) StartRing(t testing.TB, l *netlab.Lab, port *pasteapi.Port, ring int, addr string) *App {
	t.Helper()
	return a.start(t, l, addr, func() error {
		a.Port, a.Ring = port, port.Ring(ring)
		return nil
	})
}

func (a *App) start(t testing.TB, l *netlab.Lab, addr string, open func() error) *App {
	t.Helper()
	a.calls, a.done, a.ended, a.Addr = make(chan func(), 1), make(chan error, 1), make(chan struct{}), addr
	started := make(chan error, 1)
	go func() {
		a.done <- l.InServer(func() error {
			err := open()
			if err == nil {
				err = a.listen()
			}
			started <- err
			if err != nil {
				return nil
			}
			defer close(a.ended)
			err = a.run()
			if err != nil {
				t.Errorf("ring application: %v", err)
			}
			err = errors.Join(err, unix.Close(a.listener))
			if a.owned {
				err = errors.Join(err, a.Port.Close())
			}
			return err
		})
	}()
	qt.Assert(t, qt.IsNil(testwait.Receive(t, "the ring application's start", started)))
	t.Cleanup(func() { a.Stop(t) })
	return a
}

// BindToDevice has connections from now on belong to one interface, or VRF, alone.
func (a *App) BindToDevice(name string) (err error) {
	a.Do(func() { err = unix.BindToDevice(a.listener, name) })
	return err
}

// Stop ends the application. It may be called again.
func (a *App) Stop(t testing.TB) {
	t.Helper()
	if !a.stopping.Swap(true) {
		a.Ring.Wake()
		qt.Check(t, qt.IsNil(testwait.Receive(t, "the ring application's end", a.done)))
	}
}

// Do runs f on the application's goroutine, between two Polls, and waits.
func (a *App) Do(f func()) {
	ran := make(chan struct{})
	a.calls <- func() { f(); close(ran) }
	a.Ring.Wake()
	select {
	case <-ran:
	case <-a.ended:
		panic("the application has ended")
	}
}

func (a *App) listen() error {
	ap, err := netip.ParseAddrPort(a.Addr)
	if err != nil {
		return err
	}
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()})
	if ap.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	a.listener, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(
		unix.SetsockoptInt(a.listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(a.listener, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1), // another ring may be there
		unix.Bind(a.listener, sa),
		unix.Listen(a.listener, 4096),
		a.Ring.Watch(a.listener),
		a.Port.Steer(ap.Port()))
}

func (a *App) run() error {
	for !a.stopping.Load() {
		timeout := time.Duration(-1)
		if len(a.unregistered) > 0 {
			timeout = time.Millisecond
		}
		_, err := a.Ring.Poll(timeout)
		if errors.Is(err, pasteapi.ErrRingCorrupt) {
			// The other ring may be broken, too; the next Poll tells.
			a.Errs = append(a.Errs, err)
		} else if err != nil {
			return err
		} else if err := a.batch(); err != nil {
			return err
		}
		if len(a.Ring.Ready()) > 0 {
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

func (a *App) accept() error {
	for {
		fd, _, err := unix.Accept4(a.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return nil
		}
		a.Accepted++
		if a.Late {
			a.unregistered = append(a.unregistered, fd)
		} else if err := a.register(fd); err != nil {
			return err
		}
	}
}

func (a *App) register(fd int) error {
	err := a.Ring.Register(fd)
	if err != nil {
		unix.Close(fd)
		if errors.Is(err, pasteapi.ErrNotConnected) {
			return nil
		}
	}
	return err
}

func (a *App) registerLate() error {
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

func (a *App) batch() error {
	rx := a.Ring.RX()
	for !rx.Empty() {
		s := rx.Slot(rx.Head)
		if s.Closed() {
			cause := a.Ring.CloseCause(s.Fd())
			if errors.Is(cause, pasteapi.ErrNotRegistered) {
				a.After++
			} else {
				a.Causes = append(a.Causes, cause)
				if a.OnClose != nil && cause == nil {
					if err := a.OnClose(a, s.Fd()); err != nil {
						return err
					}
				}
				if err := a.Ring.CloseAfterSend(s.Fd()); err != nil {
					return err
				}
			}
		} else {
			if s.Flags&pasteapi.NS_COPIED != 0 {
				a.Copied += uint64(int(s.Len) - s.Doff())
			}
			handle := a.OnData
			if handle == nil {
				handle = (*App).Echo
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
func (a *App) room() (*pasteapi.Slot, error) {
	tx := a.Ring.TX()
	if tx.Empty() {
		if err := a.Ring.TxSync(); err != nil {
			return nil, err
		}
	}
	return tx.Slot(tx.Head), nil
}

func (a *App) push() {
	tx := a.Ring.TX()
	tx.Head = tx.Next(tx.Head)
	tx.Cur = tx.Head
}

// Send copies b, which fits one slot, into the ring.
func (a *App) Send(fd int, b []byte) error {
	out, err := a.room()
	if err != nil {
		return err
	}
	out.SetFd(fd)
	out.SetDoff(0)
	out.Len = uint16(copy(a.Ring.TX().Buf(out), b))
	a.push()
	return nil
}

// Echo sends a payload back from the buffer where it was received, or, if that is a run
// of frames, copies of it.
func (a *App) Echo(in *pasteapi.Slot) error {
	if in.Flags&pasteapi.NS_RUN != 0 {
		for b := a.Ring.RX().Payload(in); len(b) > 0; {
			n := min(len(b), int(a.Ring.TX().NrBufSize))
			if err := a.Send(in.Fd(), b[:n]); err != nil {
				return err
			}
			b = b[n:]
		}
		return nil
	}
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
