package pasteapi

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/pastenet/paste/internal/seed"
	"github.com/pastenet/paste/internal/testwait"
	"golang.org/x/sys/unix"
)

// udpSocket makes a UDP socket that is registered with a ring.
func udpSocket(t testing.TB, r *Ring, addr string) (fd int, local netip.AddrPort) {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	qt.Assert(t, qt.IsNil(err))
	fd, err = r.RegisterConn(c)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() {
		if r.Conn(fd) == c {
			qt.Check(t, qt.IsNil(r.Unregister(fd)))
		}
		c.Close()
	})
	return fd, c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// udpPeer makes an ordinary socket for the other end.
func udpPeer(t testing.TB, addr string) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { c.Close() })
	qt.Assert(t, qt.IsNil(c.SetDeadline(time.Now().Add(testwait.Patience))))
	return c, c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// next is the next thing that comes; the ring has nothing else.
func next(t testing.TB, r *Ring) (got Segment) {
	t.Helper()
	n, err := r.Poll(testwait.Patience)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(n, 1))
	for seg := range r.Segments() {
		got = seg
	}
	return got
}

// TestUDPAddresses: a slot says who has sent its datagram, and to which address, and an
// answer comes from there; on sockets bound to one address and to all, of either family.
func TestUDPAddresses(t *testing.T) {
	for _, c := range []struct{ bound, dial, from string }{
		{"127.0.0.1:0", "127.0.0.1", "127.0.0.1:0"},
		{"0.0.0.0:0", "127.0.0.1", "127.0.0.1:0"},
		{"0.0.0.0:0", "127.7.7.7", "127.0.0.2:0"}, // the kernel would answer from another one
		{"[::1]:0", "::1", "[::1]:0"},
		{"[::]:0", "::1", "[::1]:0"},
		{"[::]:0", "127.7.7.7", "127.0.0.2:0"},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			r, _ := newTestRing(t)
			_, local := udpSocket(t, r, c.bound)
			to := netip.AddrPortFrom(netip.MustParseAddr(c.dial), local.Port())
			peer, from := udpPeer(t, c.from)
			for _, size := range []int{1, 0, 512, 1500, 1986} {
				want := bytes.Repeat([]byte{byte(size)}, size)
				_, err := peer.WriteToUDPAddrPort(want, to)
				qt.Assert(t, qt.IsNil(err))
				seg := next(t, r)
				qt.Check(t, qt.IsTrue(seg.Datagram()))
				qt.Check(t, qt.IsFalse(seg.Closed()))
				qt.Check(t, qt.IsFalse(seg.Truncated()))
				qt.Check(t, qt.IsNil(seg.Err()))
				qt.Check(t, qt.Equals(seg.Peer(), from))
				qt.Check(t, qt.Equals(seg.Local(), to))
				qt.Assert(t, qt.CmpEquals(seg.Payload(), want, cmpopts.EquateEmpty()))
				if size%2 == 0 {
					qt.Assert(t, qt.IsNil(seg.Forward(seg.Fd())))
				} else {
					qt.Assert(t, qt.IsNil(seg.Reply(seg.Payload())))
				}
				qt.Assert(t, qt.IsNil(r.TxSync()))
				b := make([]byte, 4096)
				n, addr, err := peer.ReadFromUDPAddrPort(b)
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), to))
				qt.Check(t, qt.CmpEquals(b[:n], want, cmpopts.EquateEmpty()))
			}
			st := r.count()
			qt.Check(t, qt.Equals(st.UDPReceived, 5))
			qt.Check(t, qt.Equals(st.UDPSent, 5))
			qt.Check(t, qt.Equals(st.UDPSentBytes, st.UDPBytes))
		})
	}
}

// TestUDPConnected: on a connected socket nothing has to be said of the peer, and one
// socket's datagrams are forwarded to another one's peer.
func TestUDPConnected(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		r, _ := newTestRing(t)
		server, _ := udpPeer(t, host+":0")
		c, err := net.Dial("udp", server.LocalAddr().String())
		qt.Assert(t, qt.IsNil(err))
		defer c.Close()
		fd, err := r.RegisterConn(c.(*net.UDPConn))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(r.Send(fd, []byte("question"))))
		put(r, fd, []byte("plain slot")) // without any header
		qt.Assert(t, qt.IsNil(r.TxSync()))
		b := make([]byte, 100)
		var from netip.AddrPort
		for _, want := range []string{"question", "plain slot"} {
			n, addr, err := server.ReadFromUDPAddrPort(b)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(string(b[:n]), want))
			from = addr
		}
		_, err = server.WriteToUDPAddrPort([]byte("answer"), from)
		qt.Assert(t, qt.IsNil(err))
		seg := next(t, r)
		qt.Check(t, qt.Equals(string(seg.Payload()), "answer"))
		qt.Check(t, qt.Equals(seg.Peer().Port(), uint16(server.LocalAddr().(*net.UDPAddr).Port)))

		_, local := udpSocket(t, r, host+":0")
		client, _ := udpPeer(t, host+":0")
		_, err = client.WriteToUDPAddrPort([]byte("through"), local)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(next(t, r).Forward(fd)))
		qt.Assert(t, qt.IsNil(r.TxSync()))
		n, addr, err := server.ReadFromUDPAddrPort(b)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(string(b[:n]), "through"))
		qt.Check(t, qt.Equals(addr, from))
		qt.Assert(t, qt.IsNil(r.Unregister(fd)))
	}
}

// TestUDPSizes: a datagram that is longer than a buffer is cut, and says so; one that
// is to be sent is refused.
func TestUDPSizes(t *testing.T) {
	r, _ := newTestRing(t)
	fd, local := udpSocket(t, r, "127.0.0.1:0")
	peer, from := udpPeer(t, "127.0.0.1:0")
	long := bytes.Repeat([]byte("0123456789"), 500)
	_, err := peer.WriteToUDPAddrPort(long, local)
	qt.Assert(t, qt.IsNil(err))
	seg := next(t, r)
	qt.Check(t, qt.IsTrue(seg.Truncated()))
	qt.Check(t, qt.DeepEquals(seg.Payload(), long[:2048-42]))
	qt.Check(t, qt.Equals(r.count().UDPTruncated, 1))
	err = r.SendTo(fd, long, from, netip.AddrPort{})
	qt.Check(t, qt.ErrorIs(err, ErrDatagramSize))
	qt.Check(t, qt.ErrorMatches(err, ".*5000 bytes.*limit is 1986.*"))
	qt.Check(t, qt.ErrorIs(r.SendTo(fd+1000, nil, from, local), ErrNotRegistered))
}

// TestUDPUnreachable: an ICMP message is told, with the address that it is about, and
// the socket goes on.
func TestUDPUnreachable(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		for _, bound := range []string{host, map[string]string{"127.0.0.1": "0.0.0.0", "[::1]": "[::]"}[host]} {
			r, _ := newTestRing(t)
			fd, local := udpSocket(t, r, bound+":0")
			closed, nobody := udpPeer(t, host+":0")
			qt.Assert(t, qt.IsNil(closed.Close()))
			peer, alive := udpPeer(t, host+":0")
			qt.Assert(t, qt.IsNil(r.SendTo(fd, []byte("anybody?"), nobody, netip.AddrPort{})))
			qt.Assert(t, qt.IsNil(r.SendTo(fd, []byte("hello"), alive, netip.AddrPort{})))
			qt.Assert(t, qt.IsNil(r.TxSync()))
			seg := next(t, r)
			qt.Check(t, qt.ErrorIs(seg.Err(), unix.ECONNREFUSED))
			qt.Check(t, qt.Equals(seg.Peer(), nobody))
			qt.Check(t, qt.HasLen(seg.Payload(), 0))
			qt.Check(t, qt.IsFalse(seg.Closed()))
			qt.Assert(t, qt.IsNil(seg.Forward(fd))) // it is nothing that could be sent
			qt.Assert(t, qt.IsNil(r.TxSync()))
			b := make([]byte, 100)
			n, _, err := peer.ReadFromUDPAddrPort(b)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(string(b[:n]), "hello"))
			_, err = peer.WriteToUDPAddrPort([]byte("well"), netip.AddrPortFrom(alive.Addr(), local.Port()))
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(string(next(t, r).Payload()), "well"))
			qt.Check(t, qt.Equals(r.count().UDPErrors, 1))
		}
	}
}

// TestUDPUnsendable: what the kernel refuses is counted, and holds nothing up.
func TestUDPUnsendable(t *testing.T) {
	r, _ := newTestRing(t)
	fd, _ := udpSocket(t, r, "127.0.0.1:0")
	peer, alive := udpPeer(t, "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(r.Send(fd, []byte("to whom?"))))
	qt.Assert(t, qt.IsNil(r.SendTo(fd, []byte("1"), alive, netip.AddrPort{})))
	qt.Assert(t, qt.IsNil(r.SendTo(fd, []byte("no"), netip.MustParseAddrPort("[::1]:9"), netip.AddrPort{})))
	qt.Assert(t, qt.IsNil(r.SendTo(fd, []byte("2"), alive, netip.AddrPort{})))
	qt.Assert(t, qt.IsNil(r.TxSync()))
	b := make([]byte, 10)
	for _, want := range []string{"1", "2"} {
		n, _, err := peer.ReadFromUDPAddrPort(b)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(string(b[:n]), want))
	}
	st := r.count()
	qt.Check(t, qt.Equals(st.UDPSent, 2))
	qt.Check(t, qt.Equals(st.UDPDropped, 2))
}

// TestUDPEnds: a socket that is shut down ends behind what has come, Hold leaves
// datagrams in the socket, CloseAfterSend closes it, and it may be registered again.
func TestUDPEnds(t *testing.T) {
	r, _ := newTestRing(t)
	fd, local := udpSocket(t, r, "127.0.0.1:0")
	peer, _ := udpPeer(t, "127.0.0.1:0")
	say := func(s string) {
		t.Helper()
		_, err := peer.WriteToUDPAddrPort([]byte(s), local)
		qt.Assert(t, qt.IsNil(err))
	}
	qt.Check(t, qt.ErrorIs(r.Register(fd), ErrRegistered))
	qt.Check(t, qt.ErrorIs(r.Expect(fd, 100), ErrExpect))
	qt.Assert(t, qt.IsNil(r.Hold(fd)))
	say("held")
	qt.Assert(t, qt.IsTrue(readable(t, fd, patience)))
	for range 20 {
		n, err := r.Poll(0)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(n, 0))
	}
	qt.Assert(t, qt.IsNil(r.Release(fd)))
	qt.Check(t, qt.Equals(string(next(t, r).Payload()), "held"))

	owner := r.Conn(fd)
	qt.Assert(t, qt.IsNil(r.Unregister(fd)))
	say("between")
	_, err := r.RegisterConn(owner)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(next(t, r).Payload()), "between"))

	say("last")
	qt.Assert(t, qt.IsTrue(errors.Is(unix.Shutdown(fd, unix.SHUT_RD), unix.ENOTCONN))) // and it is shut down all the same
	var got []string
	testwait.Until(t, "the close notice", func() bool {
		_, err := r.Poll(0)
		qt.Assert(t, qt.IsNil(err))
		for seg := range r.Segments() {
			if seg.Closed() {
				qt.Check(t, qt.IsNil(seg.Cause()))
				return true
			}
			got = append(got, string(seg.Payload()))
		}
		return false
	})
	qt.Check(t, qt.DeepEquals(got, []string{"last"}))
	qt.Assert(t, qt.IsNil(r.CloseAfterSend(fd)))
	qt.Assert(t, qt.IsNil(r.TxSync()))
	qt.Check(t, qt.ErrorIs(r.Unregister(fd), ErrNotRegistered))
}

// TestUDPMany: datagrams of several sockets come whole and in order, whoever waits in
// Poll or for the descriptor, and more than fit the ring wait in their sockets.
func TestUDPMany(t *testing.T) {
	rng := seed.New(t)
	for _, outside := range []bool{false, true} {
		r, _ := newTestRing(t)
		fd := -1
		if outside {
			var err error
			fd, err = r.Fd()
			qt.Assert(t, qt.IsNil(err))
		}
		const sockets, rounds, burst = 4, 200, 30
		done := make(chan error, sockets)
		for range sockets {
			_, local := udpSocket(t, r, "127.0.0.1:0")
			peer, _ := udpPeer(t, "127.0.0.1:0")
			go func() { done <- volley(peer, local, rounds, burst) }()
		}
		for left := sockets; left > 0; {
			if outside {
				readable(t, fd, 100)
			}
			_, err := r.Poll(time.Duration(rng.IntN(2)) * time.Millisecond)
			qt.Assert(t, qt.IsNil(err))
			for seg := range r.Segments() {
				for seg.Forward(seg.Fd()) != nil {
					qt.Assert(t, qt.IsNil(r.TxSync()))
				}
			}
			qt.Assert(t, qt.IsNil(r.TxSync()))
			select {
			case err := <-done:
				qt.Assert(t, qt.IsNil(err))
				left--
			default:
			}
		}
		qt.Check(t, qt.Equals(r.count().UDPReceived, sockets*rounds*burst))
	}
}

// volley sends bursts, and expects each back in order.
func volley(c *net.UDPConn, to netip.AddrPort, rounds, burst int) error {
	b := make([]byte, 100)
	for round := range rounds {
		for i := range burst {
			if _, err := c.WriteToUDPAddrPort(fmt.Appendf(nil, "%d %d", round, i), to); err != nil {
				return err
			}
		}
		for i := range burst {
			n, _, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return err
			}
			if want := fmt.Sprintf("%d %d", round, i); string(b[:n]) != want {
				return fmt.Errorf("got %q in place of %q", b[:n], want)
			}
		}
	}
	return nil
}
