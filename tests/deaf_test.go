package tests

import (
	"net"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/ringapp"
	"github.com/pastenet/paste/pasteapi"
)

// TestDeafPeers has peers ask for much more than the pool holds, and read nothing,
// over each way in: what waits for them takes no frame from the others for long,
// and who asks anew is answered.
func TestDeafPeers(t *testing.T) {
	for _, mode := range []pasteapi.ReceiveMode{pasteapi.ReceiveSteered, pasteapi.ReceiveCopied, pasteapi.ReceiveAuto} {
		t.Run(mode.String(), func(t *testing.T) {
			l := newLab(t, netlab.Config{})
			a := &ringapp.App{}
			var answer [2000]byte
			a.OnData = func(a *ringapp.App, s *pasteapi.Slot) error {
				p := a.Ring.RX().Payload(s)
				if strings.Trim(string(p), "*") != "" {
					return a.Echo(s)
				}
				for range p {
					for range 100 { // 200 KB for each byte
						if err := a.Send(s.Fd(), answer[:]); err != nil {
							return err
						}
					}
				}
				return nil
			}
			a.Start(t, l, pasteapi.Options{NIC: l.ServerDev, Receive: mode, Pool: newPool(t, 24<<20)}, net.JoinHostPort(l.ServerIP4.String(), "7000"))
			for range 12 { // 12 times 4 MiB, the limit for one
				deaf := dial(t, l, a.Addr)
				qt.Assert(t, qt.IsNil(deaf.SetReadBuffer(4096)))
				for range 40 {
					_, err := deaf.Write([]byte("*"))
					if err != nil {
						break // it was given up
					}
				}
			}
			parallel(t, 8, func(i int) error { return tripFrom(l, a.Addr, random(1<<20, int64(i)), 1<<15) })
		})
	}
}
