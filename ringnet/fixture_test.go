package ringnet_test

import (
	"context"
	"net"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/ringnet"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ways are the ways in that need no NIC, by name.
var ways = map[string]pasteapi.ReceiveMode{"auto": pasteapi.ReceiveAuto, "copied": pasteapi.ReceiveCopied}

// open opens a Net without a NIC until the test ends, and looks then whether all
// of its frames are back.
func open(t testing.TB, o pasteapi.Options) *ringnet.Net {
	t.Helper()
	pool, err := pmem.NewMemory("ringnet-test", pmem.Options{Size: 32 << 20})
	qt.Assert(t, qt.IsNil(err))
	free := pool.Free()
	o.Pool = pool
	port, err := pasteapi.Open(context.Background(), o)
	qt.Assert(t, qt.IsNil(err))
	n, err := ringnet.New(port, pool, nil)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() {
		qt.Check(t, qt.IsNil(n.Close()))
		qt.Check(t, qt.IsNil(port.Close()))
		qt.Check(t, qt.Equals(pool.Free(), free))
		qt.Check(t, qt.IsNil(pool.Close()))
	})
	return n
}

func listen(t testing.TB, n *ringnet.Net) *ringnet.Listener {
	t.Helper()
	l, err := n.Listen(context.Background(), "tcp", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { l.Close() })
	return l
}

// pair returns both ends of a connection: the accepted one, and one of package net.
func pair(t testing.TB, l *ringnet.Listener) (*ringnet.Conn, *net.TCPConn) {
	t.Helper()
	peer, err := net.Dial("tcp", l.Addr().String())
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { peer.Close() })
	c, err := l.AcceptRing()
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { c.Close() })
	return c, peer.(*net.TCPConn)
}
