package tcplisten

import (
	"fmt"
	"net"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// No address means all of both kinds, and 0.0.0.0 all of IPv4.
func TestListenFamilies(t *testing.T) {
	for _, tc := range []struct {
		addr   string
		v4, v6 bool
	}{
		{":0", true, true},
		{"[::]:0", true, true},
		{"0.0.0.0:0", true, false},
		{"127.0.0.1:0", true, false},
		{"[::1]:0", false, true},
		{"localhost:0", true, false},
	} {
		t.Run(tc.addr, func(t *testing.T) {
			fd, bound, err := Listen(tc.addr, false)
			qt.Assert(t, qt.IsNil(err))
			defer unix.Close(fd)
			for host, want := range map[string]bool{"127.0.0.1": tc.v4, "::1": tc.v6} {
				c, err := net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(bound.Port())))
				qt.Check(t, qt.Equals(err == nil, want), qt.Commentf("%s: %v", host, err))
				if err == nil {
					c.Close()
				}
			}
			// Another server on the same address is found out.
			_, _, err = Listen(bound.String(), false)
			qt.Check(t, qt.ErrorIs(err, ErrAddrInUse))
		})
	}
}
