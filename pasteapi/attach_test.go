package pasteapi_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/ringapp"
	"github.com/pastenet/paste/internal/testwait"
	"github.com/pastenet/paste/pasteapi"
)

// TestAttachNIC: a NIC comes and goes while a port is open and connections are busy on
// all of its rings; every byte comes once and in order, steered while it is there.
func TestAttachNIC(t *testing.T) {
	l := newLab(t, netlab.Config{Queues: 2})
	var port *pasteapi.Port
	qt.Assert(t, qt.IsNil(l.InServer(func() (err error) {
		port, err = pasteapi.Open(context.Background(), pasteapi.Options{Pool: newPool(t, 64<<20), Rings: 2, Receive: pasteapi.ReceiveSteered})
		return err
	})))
	addr := net.JoinHostPort(l.ServerIP4.String(), "7000")
	apps := []*ringapp.App{new(ringapp.App).StartRing(t, l, port, 0, addr), new(ringapp.App).StartRing(t, l, port, 1, addr)}
	defer func() {
		for _, a := range apps {
			a.Stop(t)
		}
		qt.Check(t, qt.IsNil(port.Close()))
	}()
	in := func(f func() error) error { return l.InServer(f) }
	attach := func() error {
		return in(func() error { return port.AttachNIC(context.Background(), l.ServerDev) })
	}
	detach := func() error {
		return in(func() error { return port.DetachNIC(context.Background(), l.ServerDev) })
	}
	qt.Check(t, qt.ErrorIs(detach(), pasteapi.ErrNICNotAttached))

	const conns = 8
	done := make(chan error, conns)
	stop := make(chan struct{})
	for i := range conns {
		c := dial(t, l, addr)
		go func() {
			for round := int64(0); ; round++ {
				if err := chunkTrip(c, random(300_000, int64(i)+round)); err != nil {
					done <- err
					return
				}
				select {
				case <-stop:
					done <- c.Close()
					return
				default:
				}
			}
		}()
	}
	for range 4 {
		before := port.Status().Stats.SteeredBytes
		qt.Assert(t, qt.IsNil(attach()))
		st := port.Status()
		qt.Check(t, qt.Equals(st.NIC, l.ServerDev))
		qt.Check(t, qt.HasLen(st.Queues, 2))
		qt.Check(t, qt.ErrorIs(attach(), pasteapi.ErrNICAttached))
		qt.Check(t, qt.ErrorIs(in(func() error { return port.AttachNIC(context.Background(), "lo") }), pasteapi.ErrSteersOne))
		testwait.Until(t, "steered payload", func() bool { return port.Status().Stats.SteeredBytes > before+1<<20 })
		qt.Assert(t, qt.IsNil(detach()))
		st = port.Status()
		qt.Check(t, qt.Equals(st.NIC, ""))
		qt.Check(t, qt.HasLen(st.Queues, 0))
		copied := st.Stats.CopiedBytes + st.Stats.ReadBytes
		testwait.Until(t, "payload by copy", func() bool {
			st := port.Status().Stats
			return st.CopiedBytes+st.ReadBytes > copied+1<<20
		})
	}
	close(stop)
	for range conns {
		qt.Check(t, qt.IsNil(testwait.Receive(t, "the end of a client", done)))
	}
}

// chunkTrip sends data and expects it back, and leaves the connection open.
func chunkTrip(c *net.TCPConn, data []byte) error {
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		sent <- err
	}()
	got := make([]byte, len(data))
	_, err := io.ReadFull(c, got)
	if err == nil && !bytes.Equal(got, data) {
		err = errors.New("other bytes came back")
	}
	return errors.Join(err, <-sent)
}

// TestSeveralNICs: a port may have several NICs of which none is steered; each is
// claimed, and the port answers for all of them.
func TestSeveralNICs(t *testing.T) {
	l := newLab(t, netlab.Config{})
	a := new(ringapp.App).Start(t, l, pasteapi.Options{NIC: l.ServerDev, Pool: newPool(t, 64<<20)}, "0.0.0.0:7000")
	in := func(f func() error) error { return l.InServer(f) }
	qt.Assert(t, qt.IsNil(in(func() error { return a.Port.AttachNIC(context.Background(), "lo") })))
	qt.Check(t, qt.DeepEquals(a.Port.Status().NICs, []string{l.ServerDev, "lo"}))
	qt.Check(t, qt.ErrorIs(in(func() error { return a.Port.AttachNIC(context.Background(), "none") }), bpf.ErrNoSuchNIC))
	qt.Assert(t, qt.IsNil(in(func() error {
		_, err := pasteapi.Open(context.Background(), pasteapi.Options{NIC: "lo", Pool: newPool(t, 32<<20)})
		qt.Check(t, qt.ErrorIs(err, pasteapi.ErrNICInUse))
		st, err := pasteapi.QueryNIC(context.Background(), "lo")
		qt.Check(t, qt.Equals(st.NIC, l.ServerDev))
		return err
	})))
	qt.Check(t, qt.IsNil(roundTrip(dial(t, l, net.JoinHostPort(l.ServerIP4.String(), "7000")), random(1<<20, 1), 64_000)))
	var lo net.Conn
	qt.Assert(t, qt.IsNil(in(func() (err error) { lo, err = net.Dial("tcp", "127.0.0.1:7000"); return err })))
	qt.Check(t, qt.IsNil(roundTrip(lo.(*net.TCPConn), random(1<<20, 1), 64_000)))

	qt.Assert(t, qt.IsNil(in(func() error { return a.Port.DetachNIC(context.Background(), l.ServerDev) })))
	qt.Check(t, qt.Equals(a.Port.Status().NIC, "lo"))
	qt.Assert(t, qt.IsNil(in(func() error { return a.Port.DetachNIC(context.Background(), "lo") })))
	qt.Check(t, qt.Equals(a.Port.Status().NIC, ""))
	qt.Check(t, qt.IsNil(roundTrip(dial(t, l, net.JoinHostPort(l.ServerIP4.String(), "7000")), random(1<<20, 1), 64_000)))
}

// TestPortForEachNIC: ports that steer a NIC each share a pool.
func TestPortForEachNIC(t *testing.T) {
	pool := newPool(t, 128<<20)
	for range 2 {
		l := newLab(t, netlab.Config{})
		a := new(ringapp.App).Start(t, l, pasteapi.Options{NIC: l.ServerDev, Pool: pool, Receive: pasteapi.ReceiveSteered}, "0.0.0.0:7000")
		defer func() { // with both of them open
			qt.Check(t, qt.IsNil(roundTrip(dial(t, l, net.JoinHostPort(l.ServerIP4.String(), "7000")), random(1<<20, 1), 64_000)))
			qt.Check(t, qt.IsTrue(a.Port.Status().Stats.Steered > 0))
		}()
	}
}

// TestAttachGivesUp: an attach that waits for rings nobody polls ends with its context,
// and with the port.
func TestAttachGivesUp(t *testing.T) {
	l := newLab(t, netlab.Config{})
	for _, byClose := range []bool{false, true} {
		qt.Assert(t, qt.IsNil(l.InServer(func() error {
			port, err := pasteapi.Open(context.Background(), pasteapi.Options{Pool: newPool(t, 32<<20), Receive: pasteapi.ReceiveSteered})
			qt.Assert(t, qt.IsNil(err))
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			stop := func() { qt.Check(t, qt.IsNil(port.Close())) }
			if !byClose {
				stop = cancel
			}
			end := make(chan struct{})
			go func() {
				defer close(end)
				testwait.Until(t, "the attach to wait", func() bool { return port.Status().NIC != "" })
				stop()
			}()
			qt.Check(t, qt.ErrorIs(port.AttachNIC(ctx, l.ServerDev), context.Canceled))
			<-end
			return port.Close()
		})))
	}
}
