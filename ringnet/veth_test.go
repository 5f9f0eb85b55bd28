package ringnet_test

import (
	"context"
	"net"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/ringnet"
	"golang.org/x/net/nettest"
)

// TestConnSteered: the same as TestConn, with payload that is received in place, by
// two rings on two queues.
func TestConnSteered(t *testing.T) {
	lab := netlabtest.New(t, netlab.Config{Prefix: "rn", Queues: 2})
	pool, err := pmem.NewMemory("ringnet-test", pmem.Options{Size: 64 << 20})
	qt.Assert(t, qt.IsNil(err))
	free := pool.Free()
	var port *pasteapi.Port
	var n *ringnet.Net
	var l *ringnet.Listener
	qt.Assert(t, qt.IsNil(lab.InServer(func() (err error) {
		port, err = pasteapi.Open(context.Background(), pasteapi.Options{NIC: lab.ServerDev, Pool: pool, Rings: 2, Receive: pasteapi.ReceiveSteered, Copybreak: -1})
		if err != nil {
			return err
		}
		if n, err = ringnet.New(port, pool, nil); err != nil {
			return err
		}
		l, err = n.Listen(context.Background(), "tcp", net.JoinHostPort(lab.ServerIP4.String(), "0"))
		return err
	})))
	nettest.TestConn(t, pipes(l, func(network, address string) (net.Conn, error) {
		return lab.Client.DialContext(context.Background(), network, address)
	}))
	stats := port.Status().Stats
	qt.Check(t, qt.IsTrue(stats.SteeredBytes > 1<<20), qt.Commentf("%+v", stats))
	qt.Check(t, qt.IsNil(n.Close()))
	qt.Check(t, qt.IsNil(lab.InServer(port.Close)))
	qt.Check(t, qt.Equals(pool.Free(), free))
	qt.Check(t, qt.IsNil(pool.Close()))
}
