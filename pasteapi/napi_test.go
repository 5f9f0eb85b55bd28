package pasteapi_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/ringapp"
	"github.com/pastenet/paste/internal/testkernel"
	"github.com/pastenet/paste/pasteapi"
)

// TestNAPIPoll: a ring that polls its NIC receives as any other, and Open refuses to
// where that would do nothing.
func TestNAPIPoll(t *testing.T) {
	for want, o := range map[string]pasteapi.Options{
		"open port: 1ns of polling the NIC .*":   {NIC: "x", NAPIPoll: 1},
		"open port: 1m0s of polling the NIC .*":  {NIC: "x", NAPIPoll: time.Minute},
		"open port: NAPIPoll is about a NIC: .*": {NAPIPoll: time.Millisecond},
		"open port: .* one that always spins .*": {NIC: "x", NAPIPoll: time.Millisecond, Spin: -1},
	} {
		o.Pool = newPool(t, 32<<20)
		_, err := pasteapi.Open(t.Context(), o)
		qt.Check(t, qt.ErrorMatches(err, want))
	}
	testkernel.SkipBefore(t, "6.9", "polling a NIC from epoll")

	l := newLab(t, netlab.Config{})
	addr := net.JoinHostPort(l.ServerIP4.String(), "7000")
	// With XDP a veth is polled, and with neither that nor GRO it is not.
	o := pasteapi.Options{NIC: l.ServerDev, Pool: newPool(t, 64<<20), Receive: pasteapi.ReceiveSteered, NAPIPoll: 200 * time.Microsecond}
	a := new(ringapp.App).Start(t, l, o, addr)
	qt.Check(t, qt.Equals(a.Port.Status().NAPIPoll, o.NAPIPoll))
	qt.Assert(t, qt.IsNil(roundTrip(dial(t, l, addr), random(1<<20, 1), 10_000)))
	a.Stop(t)

	qt.Assert(t, qt.IsNil(l.InServer(func() error {
		o.Pool, o.Receive = newPool(t, 32<<20), pasteapi.ReceiveCopied
		_, err := pasteapi.Open(context.Background(), o)
		qt.Check(t, qt.ErrorMatches(err, "open port: "+l.ServerDev+" has no NAPI instance to poll .*"))
		qt.Check(t, qt.ErrorIs(err, errors.ErrUnsupported))
		return nil
	})))
}
