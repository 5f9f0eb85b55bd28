package ringnet_test

import (
	"net"
	"testing"

	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/net/nettest"
)

// TestConn: a connection behaves as those of package net do, with either end over a
// ring, or both.
func TestConn(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			n := open(t, pasteapi.Options{Receive: way})
			l := listen(t, n)
			dials := map[string]func(network, address string) (net.Conn, error){"accepted": net.Dial, "both": n.Dial}
			for end, dial := range dials {
				t.Run(end, func(t *testing.T) { nettest.TestConn(t, pipes(l, dial)) })
			}
		})
	}
}

// pipes makes connections to l.
func pipes(l net.Listener, dial func(network, address string) (net.Conn, error)) nettest.MakePipe {
	return func() (c1, c2 net.Conn, stop func(), err error) {
		if c1, err = dial("tcp", l.Addr().String()); err != nil {
			return nil, nil, nil, err
		}
		if c2, err = l.Accept(); err != nil {
			c1.Close()
			return nil, nil, nil, err
		}
		return c1, c2, func() { c1.Close(); c2.Close() }, nil
	}
}
