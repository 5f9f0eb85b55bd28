package tests

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/ringapp"
	"github.com/pastenet/paste/internal/testkernel"
	"github.com/pastenet/paste/pasteapi"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An application on the rings and an ordinary server share a NIC, and the
// ordinary one's port is steered too: the segments of its connections, which are
// not registered, pass.
func TestUnregisteredOnSteeredPort(t *testing.T) {
	l := newLab(t, netlab.Config{})
	a := startEcho(t, l)
	ln, err := l.Server.Listen(t.Context(), "tcp", net.JoinHostPort(l.ServerIP4.String(), "7001"))
	qt.Assert(t, qt.IsNil(err))
	plain := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			fmt.Fprintf(w, "%x", sha256.Sum256(body))
		}
	})}
	served := make(chan error, 1)
	go func() { served <- plain.Serve(ln) }()
	t.Cleanup(func() {
		plain.Close()
		qt.Check(t, qt.Equals(<-served, http.ErrServerClosed))
	})
	qt.Assert(t, qt.IsNil(a.Port.Steer(7001)))

	client := newClient(t, l)
	parallel(t, 20, func(i int) error {
		data := random(1+i*i*5000, int64(i))
		if i%2 == 0 {
			return tripFrom(l, a.Addr, data, 4000)
		}
		for range 5 {
			resp, err := client.Post("http://"+ln.Addr().String(), "", newReader(data))
			if err != nil {
				return err
			}
			sum, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(sum) != fmt.Sprintf("%x", sha256.Sum256(data)) {
				return fmt.Errorf("unregistered server read something else: %q %w", sum, err)
			}
		}
		return nil
	})
	client.CloseIdleConnections()
	st := a.Port.Status()
	qt.Check(t, qt.IsTrue(st.Stats.Steered > 0))
	qt.Check(t, qt.IsTrue(st.Steer["pass_conn"] > 100), qt.Commentf("%+v", st))
}

// Two applications at once, each with a NIC; one of them has two queues and two
// rings, whose connections share a log.
func TestTwoApplications(t *testing.T) {
	l := newLab(t, netlab.Config{Queues: 2})
	s := serve(t, l, poolFile(t), "--rings", "2")
	other := newLab(t, netlab.Config{})
	s2 := serve(t, other, poolFile(t)+"2")
	t.Cleanup(func() { removeFile(t, s2.pool) })
	c, c2 := newClient(t, l), newClient(t, other)
	parallel(t, 16, func(i int) error {
		client, url := c, s.url
		if i%2 == 1 {
			client, url = c2, s2.url
		}
		for j := range 20 {
			if _, err := post(client, url, random(j*1000, int64(j))); err != nil {
				return err
			}
		}
		return nil
	})
	for _, s := range []*server{s, s2} {
		e := s.stop()
		qt.Check(t, qt.Equals(e.HTTP.Stored, 160))
		qt.Check(t, qt.IsTrue(e.Port.Stats.Steered > 100), qt.Commentf("%+v", e.Port.Stats))
		qt.Check(t, qt.HasLen(readLog(t, s.pool), 160))
	}
}

func TestIPv6(t *testing.T) {
	l := newLab(t, netlab.Config{})
	qt.Assert(t, qt.IsTrue(l.ServerIP6.IsValid()), qt.Commentf("no IPv6 in this kernel"))
	s := serve(t, l, poolFile(t), "--listen", net.JoinHostPort(l.ServerIP6.String(), "8080"))
	c := newClient(t, l)
	qt.Assert(t, qt.IsNil(get(c, s.url)))
	data := random(3<<20, 6)
	seq, err := post(c, s.url, data)
	qt.Assert(t, qt.IsNil(err))
	e := s.stop()
	// What comes before the registration is copied, which on a busy machine is much.
	qt.Check(t, qt.IsTrue(e.Port.Stats.SteeredBytes > (e.Port.Stats.CopiedBytes+e.Port.Stats.ReadBytes)), qt.Commentf("%+v", e.Port.Stats))
	qt.Check(t, qt.Equals(readLog(t, s.pool)[seq], sha256.Sum256(data)))
}

// Both address families on one socket: IPv4 clients arrive mapped into IPv6.
func TestDualStack(t *testing.T) {
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t), "--listen", "[::]:8080")
	c := newClient(t, l)
	for _, ip := range []string{l.ServerIP4.String(), l.ServerIP6.String()} {
		_, err := post(c, "http://"+net.JoinHostPort(ip, "8080"), random(4<<20, 1))
		qt.Assert(t, qt.IsNil(err))
	}
	e := s.stop()
	// What comes before the registration is copied, which on a busy machine is much.
	qt.Check(t, qt.IsTrue(e.Port.Stats.SteeredBytes > (e.Port.Stats.CopiedBytes+e.Port.Stats.ReadBytes)), qt.Commentf("%+v", e.Port.Stats))
}

// Frames with one VLAN tag are steered as well.
func TestVLAN(t *testing.T) {
	l := newLab(t, netlab.Config{})
	vlan := func(dev, addr string) func() error {
		return func() error {
			parent, err := netlink.LinkByName(dev)
			if err != nil {
				return err
			}
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.ParentIndex = "te.7", parent.Attrs().Index
			v := &netlink.Vlan{LinkAttrs: attrs, VlanId: 7}
			if err := netlink.LinkAdd(v); err != nil {
				return err
			}
			a, err := netlink.ParseAddr(addr)
			if err != nil {
				return err
			}
			return errors.Join(netlink.AddrAdd(v, a), netlink.LinkSetUp(v))
		}
	}
	testkernel.SkipWithout(t, "VLAN_8021Q")
	qt.Assert(t, qt.IsNil(l.InServer(vlan(l.ServerDev, "10.78.0.1/24"))))
	qt.Assert(t, qt.IsNil(l.InClient(vlan(l.ClientDev, "10.78.0.2/24"))))
	s := serve(t, l, poolFile(t), "--listen", "10.78.0.1:8080")
	data := random(1<<20, 6)
	seq, err := post(newClient(t, l), s.url, data)
	qt.Assert(t, qt.IsNil(err))
	s.stop()
	qt.Check(t, qt.Equals(readLog(t, s.pool)[seq], sha256.Sum256(data)))
}

// Bytes that were sent before the registration, and those that come while
// connections are being registered, stay in order with those that follow.
func TestSentBeforeRegistration(t *testing.T) {
	l := newLab(t, netlab.Config{})
	a := &ringapp.App{Late: true}
	a.Start(t, l, pasteapi.Options{NIC: l.ServerDev, Receive: pasteapi.ReceiveSteered, Pool: newPool(t, 64<<20)}, net.JoinHostPort(l.ServerIP4.String(), "7000"))
	// Not steered until later, these come past the rings altogether.
	qt.Assert(t, qt.IsNil(a.Port.Unsteer(7000)))
	parallel(t, 10, func(i int) error { return tripFrom(l, a.Addr, random(300_000, int64(i)), 10_000) })
	qt.Assert(t, qt.IsNil(a.Port.Steer(7000)))
	parallel(t, 30, func(i int) error { return tripFrom(l, a.Addr, random(300_000, int64(i)), 10_000) })
	// And the port is switched while bytes are on their way.
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 50 {
			_ = a.Port.Unsteer(7000)
			a.Do(func() {})
			_ = a.Port.Steer(7000)
		}
	}()
	parallel(t, 4, func(i int) error {
		c, err := tryDial(l, a.Addr)
		if err != nil {
			return err
		}
		// No more on its way than the ring of deliveries holds.
		if err := c.SetWriteBuffer(64 << 10); err != nil {
			return err
		}
		return roundTrip(c, random(2<<20, int64(i)), 10_000)
	})
	<-done
	st := a.Port.Status().Stats
	qt.Check(t, qt.IsTrue((st.CopiedBytes+st.ReadBytes) > 0 && st.SteeredBytes > 0), qt.Commentf("%+v", st))
}

// A client on the server's own machine comes in over loopback.
func TestLoopback(t *testing.T) {
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t), "--listen", "0.0.0.0:8080")
	client := newClient(t, l)
	local := &http.Client{Transport: &http.Transport{DialContext: l.Server.DialContext}, Timeout: patience}
	defer local.CloseIdleConnections()
	sums := make([][32]byte, 12)
	seqs := make([]uint64, len(sums))
	parallel(t, len(sums), func(i int) (err error) {
		data := random(1+i*200_000, int64(i))
		sums[i] = sha256.Sum256(data)
		if i%2 == 0 {
			seqs[i], err = post(local, "http://127.0.0.1:8080", data)
		} else {
			seqs[i], err = post(client, "http://"+net.JoinHostPort(l.ServerIP4.String(), "8080"), data)
		}
		return err
	})
	e := s.stop()
	qt.Check(t, qt.IsTrue((e.Port.Stats.CopiedBytes+e.Port.Stats.ReadBytes) > 1_000_000))
	qt.Check(t, qt.IsTrue(e.Port.Stats.SteeredBytes > 1_000_000))
	log := readLog(t, s.pool)
	for i := range sums {
		qt.Check(t, qt.Equals(log[seqs[i]], sums[i]))
	}
}

// A local sender chooses what the verdict takes for a ticket. It may cost the
// sender the fast path, never bytes, and nobody else anything.
func TestForgedTickets(t *testing.T) {
	l := newLab(t, netlab.Config{})
	a := new(ringapp.App)
	a.Start(t, l, pasteapi.Options{NIC: l.ServerDev, Receive: pasteapi.ReceiveSteered, Pool: newPool(t, 64<<20)}, "0.0.0.0:7000")
	addr := net.JoinHostPort(l.ServerIP4.String(), "7000")
	ctx := context.Background()
	parallel(t, 12, func(i int) error {
		if i%3 == 0 { // holders of true tickets
			return tripFrom(l, addr, random(3<<20, int64(i)), 1<<15)
		}
		where, ns := "127.0.0.1:7000", l.Server
		if i%3 == 2 {
			where, ns = addr, l.Client
		}
		conn, err := ns.DialContext(ctx, "tcp", where)
		if err != nil {
			return err
		}
		c := conn.(*net.TCPConn)
		raw, err := c.SyscallConn()
		if err != nil {
			return err
		}
		stop := make(chan struct{})
		forged := make(chan error, 1)
		go func() {
			var errs error
			for n := 0; ; n++ {
				select {
				case <-stop:
					forged <- errs
					return
				default:
				}
				ticket := n%64 + 1 | (n/64%8+1)<<16 // slot, generation
				err := raw.Control(func(fd uintptr) {
					errs = errors.Join(errs, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY, ticket))
				})
				if err != nil { // closed at the end
					forged <- errs
					return
				}
			}
		}()
		err = roundTrip(c, random(2<<20, int64(i)), 3000)
		close(stop)
		return errors.Join(err, <-forged)
	})
}
