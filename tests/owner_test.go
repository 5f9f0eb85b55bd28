package tests

import (
	"context"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/childproc"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/vishvananda/netlink"
)

func setMTU(dev string, mtu int) func() error {
	return func() error {
		l, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(l, mtu)
	}
}

// Somebody looks at a NIC whose MTU has grown beyond the server's buffers: frames
// that do not fit these pass, before and after.
func TestStatusWithLargerMTU(t *testing.T) {
	l := newLab(t, netlab.Config{Pin: &netlab.Pin{}})
	usePrivateBPFFS(t)
	_, stderr, err := ctl(l, "attach", l.ServerDev)
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", stderr))
	s := serve(t, l, poolFile(t), "--frame-size", "2048")
	c := newClient(t, l)
	for _, mtu := range []int{1500, 3000} {
		qt.Assert(t, qt.IsNil(l.InServer(setMTU(l.ServerDev, mtu))))
		qt.Assert(t, qt.IsNil(l.InClient(setMTU(l.ClientDev, mtu))))
		for range 2 {
			c.CloseIdleConnections()
			_, err := post(c, s.url, random(2<<20, int64(mtu)))
			qt.Assert(t, qt.IsNil(err), qt.Commentf("MTU %d", mtu))
			s.status(l)
		}
	}
	qt.Check(t, qt.IsTrue(s.status(l).Steer["pass_large"] > 0))
	s.stop()
	_, stderr, err = ctl(l, "detach", l.ServerDev)
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", stderr))
}

// Root sees the server of another user.
func TestStatusOfAnotherUser(t *testing.T) {
	l := newLab(t, netlab.Config{})
	const caps = "+net_admin,+net_raw,+bpf,+perfmon,+ipc_lock,+dac_override"
	p, err := childproc.Start(l.ServerCommand(context.Background(), "setpriv",
		"--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps="+caps, "--ambient-caps="+caps,
		pastectl, "serve", "http", "--json", "--receive", "steered", "--nic", l.ServerDev,
		"--listen", net.JoinHostPort(l.ServerIP4.String(), "8080"), "--pool", poolFile(t), "--pool-size", "64MiB"))
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(p.Kill)
	s := &server{Process: p, t: t}
	qt.Assert(t, qt.IsNil(s.wait()))
	st := s.status(l)
	qt.Check(t, qt.HasLen(st.Queues, 1))
	s.stop()
}

// A user without privilege locks all that it can open, and holds up nobody.
func TestLocksOfUsers(t *testing.T) {
	l := newLab(t, netlab.Config{})
	usePrivateBPFFS(t)
	script := `exec 3</sys/fs 4</run 5</; flock -n 3; flock -n 4; flock -n 5; for f in /run/paste*; do
		[ ! -e "$f" ] || { exec 6<"$f" && flock -n 6; }; done; echo locked; exec sleep 200`
	cmd := exec.CommandContext(t.Context(), "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "sh", "-c", script)
	out, err := cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Start()))
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	var said [6]byte
	_, err = out.Read(said[:])
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(string(said[:]), "locked"))
	for _, args := range [][]string{{"attach", l.ServerDev}, {"status"}, {"detach", l.ServerDev}} {
		_, stderr, err := ctl(l, args...)
		qt.Check(t, qt.IsNil(err), qt.Commentf("%s: %s", strings.Join(args, " "), stderr))
	}
}
