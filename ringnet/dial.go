package ringnet

import (
	"context"
	"net"

	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// Dial connects as net.Dial does, on network "tcp", "tcp4" or "tcp6".
func (n *Net) Dial(network, address string) (net.Conn, error) {
	return n.DialContext(context.Background(), network, address)
}

// DialContext connects as that of net.Dialer does, with its defaults. It fits
// http.Transport.DialContext.
func (n *Net) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return nil, &net.OpError{Op: "dial", Net: network, Err: net.UnknownNetworkError(network)}
	}
	var d net.Dialer
	d.SetMultipathTCP(false)
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	a, err := n.Adopt(c.(*net.TCPConn))
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Adopt takes over a connection of package net, of which nothing was read into a
// buffer. c is closed, also on failure.
func (n *Net) Adopt(c *net.TCPConn) (*Conn, error) {
	defer c.Close()
	fd, err := duplicate(c)
	if err != nil {
		return nil, err
	}
	p := n.pump()
	local, remote := c.LocalAddr().(*net.TCPAddr), c.RemoteAddr().(*net.TCPAddr)
	a := newConn(p, fd, local, remote)
	if !p.call(func() { err = p.add(a) }) {
		err = pasteapi.ErrClosed
	}
	if err != nil {
		unix.Close(fd)
		return nil, a.opError("register", err)
	}
	return a, nil
}
