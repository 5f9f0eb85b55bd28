package pasteapi_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/ringapp"
	"github.com/pastenet/paste/pasteapi"
)

// TestForeignVLAN continues a connection by a frame with the tag of a VLAN that
// the host is not in: as without a port, its bytes reach nobody. The number 0 in
// a tag means no VLAN, so such a frame is received.
func TestForeignVLAN(t *testing.T) {
	l := newLab(t, netlab.Config{})
	addr := net.JoinHostPort(l.ServerIP4.String(), "7000")
	s := new(ringapp.App).Start(t, l, pasteapi.Options{NIC: l.ServerDev, Pool: newPool(t, 64<<20), Copybreak: -1}, addr)
	conn := dial(t, l, addr)
	defer conn.Close()
	echo := func(want string) {
		t.Helper()
		b := make([]byte, len(want))
		_, err := io.ReadFull(conn, b)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(string(b), want))
	}
	_, err := io.WriteString(conn, "untagged")
	qt.Assert(t, qt.IsNil(err))
	echo("untagged")

	raw := newRawSender(t, l, conn)
	wait := func(what string, ok func(st pasteapi.Status) bool) {
		t.Helper()
		for end := time.Now().Add(3 * time.Minute); ; time.Sleep(time.Millisecond) {
			st := s.Port.Status()
			if ok(st) {
				return
			}
			qt.Assert(t, qt.IsTrue(time.Now().Before(end)), qt.Commentf("%s: %+v", what, st))
		}
	}
	qt.Assert(t, qt.IsNil(raw.send(7, raw.seq, []byte("foreign!"))))
	wait("frame of VLAN 7 has arrived", func(st pasteapi.Status) bool {
		return st.Steer["pass_vlan"]+st.Steer["redirect"]+st.Steer["pass_small"]+st.Steer["pass_conn"] == 2
	})
	// Had it been received, the same bytes of the stream could not come again
	// with another content. The client's socket takes the echo when it has sent
	// them too.
	qt.Assert(t, qt.IsNil(raw.send(0, raw.seq, []byte("priority"))))
	wait("frame with a priority is received", func(st pasteapi.Status) bool {
		return st.Stats.SteeredBytes+(st.Stats.CopiedBytes+st.Stats.ReadBytes) >= 16
	})
	_, err = io.WriteString(conn, "priority")
	qt.Assert(t, qt.IsNil(err))
	echo("priority")
}
