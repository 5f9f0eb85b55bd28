package main

import (
	"context"
	"net"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/testwait"
)

// TestLookup: Go's own resolver is answered, over IPv4 and IPv6, also where the server
// is bound to all addresses; what is no question harms nobody.
func TestLookup(t *testing.T) {
	for _, c := range []struct{ listen, dial, network, want string }{
		{"127.0.0.1:0", "127.0.0.1", "ip4", "127.0.0.1"},
		{"[::1]:0", "::1", "ip6", "::1"},
		{"[::]:0", "127.0.0.1", "ip4", "127.0.0.1"},
	} {
		ctx, cancel := context.WithCancel(context.Background())
		done, addr := make(chan error, 1), make(chan net.Addr, 1)
		go func() { done <- run(ctx, c.listen, func(a net.Addr) { addr <- a }) }()
		_, port, err := net.SplitHostPort(testwait.Receive(t, "the server", addr).String())
		qt.Assert(t, qt.IsNil(err))
		server := net.JoinHostPort(c.dial, port)

		junk, err := net.Dial("udp", server)
		qt.Assert(t, qt.IsNil(err))
		for _, b := range []string{"", "x", "not a question at all"} {
			_, err := junk.Write([]byte(b))
			qt.Assert(t, qt.IsNil(err))
		}
		qt.Assert(t, qt.IsNil(junk.Close()))

		resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "udp", server)
		}}
		look, stop := context.WithTimeout(ctx, testwait.Patience)
		got, err := resolver.LookupNetIP(look, c.network, "anything.example.")
		stop()
		qt.Check(t, qt.IsNil(err))
		if qt.Check(t, qt.HasLen(got, 1)) {
			qt.Check(t, qt.Equals(got[0].Unmap().String(), c.want))
		}
		cancel()
		qt.Check(t, qt.IsNil(testwait.Receive(t, "the server's end", done)))
	}
}
