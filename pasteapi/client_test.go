package pasteapi_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/testwait"
	"github.com/pastenet/paste/pasteapi"
)

// TestClientSockets: a socket that has connected is received through the ring as one
// that was accepted, by each way in, and its port is steered for as long.
func TestClientSockets(t *testing.T) {
	l := newLab(t, netlab.Config{})
	for _, mode := range []pasteapi.ReceiveMode{pasteapi.ReceiveAuto, pasteapi.ReceiveCopied, pasteapi.ReceiveSteered} {
		for _, ip := range []netip.Addr{l.ClientIP4, l.ClientIP6} {
			t.Run(mode.String()+" "+ip.String(), func(t *testing.T) {
				qt.Assert(t, qt.IsNil(l.InServer(func() error { clientSocket(t, l, mode, ip); return nil })))
			})
		}
	}
}

func clientSocket(t *testing.T, l *netlab.Lab, mode pasteapi.ReceiveMode, ip netip.Addr) {
	port, err := pasteapi.Open(context.Background(), pasteapi.Options{NIC: l.ServerDev, Pool: newPool(t, 64<<20), Receive: mode})
	qt.Assert(t, qt.IsNil(err))
	defer func() { qt.Check(t, qt.IsNil(port.Close())) }()
	r := port.Ring(0)

	var peer net.Listener
	qt.Assert(t, qt.IsNil(l.InClient(func() (err error) {
		peer, err = net.Listen("tcp", net.JoinHostPort(ip.String(), "0"))
		return err
	})))
	defer peer.Close()
	const size = 4 << 20
	go func() { // greets, sends, and expects all of it back
		c, err := peer.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		hello := make([]byte, 5)
		if _, err := io.ReadFull(c, hello); !qt.Check(t, qt.IsNil(err)) {
			return
		}
		qt.Check(t, qt.Equals(string(hello), "hello"))
		qt.Check(t, qt.IsNil(roundTrip(c.(*net.TCPConn), random(size, 1), 64_000)))
	}()

	c, err := net.Dial("tcp", peer.Addr().String())
	qt.Assert(t, qt.IsNil(err))
	fd, err := r.RegisterConn(c.(*net.TCPConn))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(r.Send(fd, []byte("hello"))))
	for open := true; open; {
		_, err := r.Poll(testwait.Patience)
		qt.Assert(t, qt.IsNil(err))
		for seg := range r.Segments() {
			if seg.Closed() {
				qt.Check(t, qt.IsNil(seg.Cause()))
				open = false
			} else if seg.Forward(fd) != nil {
				qt.Assert(t, qt.IsNil(r.TxSync()))
				qt.Assert(t, qt.IsNil(seg.Forward(fd)))
			}
		}
	}
	_, err = r.Poll(0)
	qt.Assert(t, qt.IsNil(err))
	testwait.Until(t, "replies to be taken", func() bool {
		_, err := r.Poll(0)
		qt.Assert(t, qt.IsNil(err))
		return r.TxQueued(fd) == 0
	})
	qt.Assert(t, qt.IsNil(r.Unregister(fd)))
	qt.Check(t, qt.IsNil(c.Close()))
	st := port.Status()
	qt.Check(t, qt.Equals(st.Stats.SteeredBytes+st.Stats.CopiedBytes+st.Stats.ReadBytes, size))
	if mode == pasteapi.ReceiveSteered {
		qt.Check(t, qt.IsTrue(st.Stats.SteeredBytes > size/2), qt.Commentf("%+v", st))
	} else {
		qt.Check(t, qt.Equals(st.Stats.SteeredBytes, 0))
	}
	qt.Check(t, qt.HasLen(st.Ports, 0))
}
