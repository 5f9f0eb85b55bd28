package pasteapi_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/ringapp"
	"github.com/pastenet/paste/pasteapi"
	"github.com/vishvananda/netlink"
)

func upWith(name, addr string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(addr)
	if err != nil {
		return err
	}
	return errors.Join(netlink.AddrAdd(l, a), netlink.LinkSetUp(l))
}

// TestConnectionOutlivesNIC: the NIC goes and comes back under a connection, which
// goes on, and is received in place again.
func TestConnectionOutlivesNIC(t *testing.T) {
	l := newLab(t, netlab.Config{})
	pool := newPool(t, 64<<20)
	addr := net.JoinHostPort(l.ServerIP4.String(), "7000")
	a := new(ringapp.App).Start(t, l, pasteapi.Options{NIC: l.ServerDev, Pool: pool, Copybreak: -1}, addr)
	conn := dial(t, l, addr)
	exchange := func() {
		t.Helper()
		data := random(2<<20, 1)
		sent := make(chan error, 1)
		go func() { _, err := conn.Write(data); sent <- err }()
		got := make([]byte, len(data))
		_, err := io.ReadFull(conn, got)
		qt.Assert(t, qt.IsNil(errors.Join(err, <-sent)))
		qt.Assert(t, qt.IsTrue(bytes.Equal(got, data)))
	}
	wait := func(what string, ok func(st pasteapi.Status) bool) {
		t.Helper()
		for end := time.Now().Add(3 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
			st := a.Port.Status()
			if ok(st) {
				return
			}
			qt.Assert(t, qt.IsTrue(time.Now().Before(end)), qt.Commentf("%s: %+v", what, st))
		}
	}
	exchange()
	for range 2 {
		qt.Assert(t, qt.IsNil(l.InServer(func() error {
			nic, err := netlink.LinkByName(l.ServerDev)
			if err != nil {
				return err
			}
			return netlink.LinkDel(nic)
		})))
		wait("lost", func(st pasteapi.Status) bool { return strings.Contains(st.Lost, "gone") })
		qt.Check(t, qt.HasLen(a.Port.Status().Queues, 0))
		qt.Assert(t, qt.IsNil(l.InServer(func() error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = l.ServerDev
			veth := netlink.NewVeth(attrs)
			veth.PeerName, veth.PeerNamespace = l.ClientDev, netlink.NsFd(l.Client.Fd())
			return errors.Join(netlink.LinkAdd(veth), upWith(l.ServerDev, l.ServerIP4.String()+"/24"))
		})))
		qt.Assert(t, qt.IsNil(l.InClient(func() error { return upWith(l.ClientDev, l.ClientIP4.String()+"/24") })))
		wait("back", func(st pasteapi.Status) bool { return st.Lost == "" && len(st.Queues) == 1 })
		before := a.Port.Status().Stats.SteeredBytes
		exchange()
		wait("in place", func(st pasteapi.Status) bool { return st.Stats.SteeredBytes > before+(1<<20) })
	}
	conn.Close()
}
