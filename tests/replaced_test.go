package tests

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/vishvananda/netlink"
)

// nicLink finds the XDP link of the server's NIC, as another tool can.
func nicLink(t testing.TB, l *netlab.Lab) (found link.Link) {
	t.Helper()
	qt.Assert(t, qt.IsNil(l.InServer(func() error {
		nic, err := netlink.LinkByName(l.ServerDev)
		if err != nil {
			return err
		}
		var links link.Iterator
		defer links.Close()
		for links.Next() {
			// Interfaces of other namespaces may have the same number.
			info, err := links.Link.Info()
			if err == nil && info.XDP() != nil && int(info.XDP().Ifindex) == nic.Attrs().Index && uint32(info.Program) == nic.Attrs().Xdp.ProgId {
				found = links.Take()
				return nil
			}
		}
		return links.Err()
	})))
	qt.Assert(t, qt.IsNotNil(found))
	return found
}

// passProgram is what another tool might put there.
func passProgram(t testing.TB) *ebpf.Program {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "te_other", Type: ebpf.XDP, AttachType: ebpf.AttachXDP, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}, // XDP_PASS
	})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { prog.Close() })
	return prog
}

// Another tool replaces the program in the link that a server has for its own
// lifetime: uploads go on, the log says so, and the steering comes back.
func TestProgramReplaced(t *testing.T) {
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t), "--on-full", "wrap", "--copybreak", "-1")
	steersAgain(t, l, s)
	data := random(8<<20, 1)
	done := make(chan error, 1)
	go func() {
		_, err := post(newClient(t, l), s.url, data)
		done <- err
	}()
	x := nicLink(t, l)
	qt.Assert(t, qt.IsNil(x.Update(passProgram(t))))
	qt.Assert(t, qt.IsNil(<-done))
	waitFor(t, func() bool { return strings.Contains(s.Said(), "te_other") })
	// The link lives as long as anybody has it open.
	qt.Assert(t, qt.IsNil(x.Close()))
	waitFor(t, func() bool { return strings.Contains(s.Said(), "the interface is back") })
	before := portStatus(t, l).Stats.SteeredBytes
	_, err := post(newClient(t, l), s.url, random(1<<20, 2))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(portStatus(t, l).Stats.SteeredBytes > before))
	once(t, s, "the interface is lost")
	once(t, s, "the interface is back")
	s.stop()
	found := 0
	for _, got := range readLog(t, s.pool) {
		if got == sum(data) {
			found++
		}
	}
	qt.Check(t, qt.Equals(found, 1))
}

// The same where an operator has attached the NIC: the other program stays until the
// operator decides, and everybody is told.
func TestPinnedProgramReplaced(t *testing.T) {
	l := newLab(t, netlab.Config{})
	usePrivateBPFFS(t)
	run := func(args ...string) string {
		t.Helper()
		stdout, stderr, err := ctl(l, args...)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", stderr))
		return stdout
	}
	run("attach", l.ServerDev)
	s := serve(t, l, poolFile(t), "--on-full", "wrap", "--copybreak", "-1")
	steersAgain(t, l, s)
	x := nicLink(t, l)
	qt.Assert(t, qt.IsNil(x.Update(passProgram(t))))
	qt.Assert(t, qt.IsNil(x.Close()))
	waitFor(t, func() bool { return strings.Contains(portStatus(t, l).Lost, "te_other") })
	_, err := post(newClient(t, l), s.url, random(1<<20, 1))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.StringContains(run("status"), "nothing is steered: XDP program"))
	waitFor(t, func() bool { return strings.Contains(s.Said(), "cannot be taken back yet") })
	_, stderr, err := ctl(l, "attach", l.ServerDev)
	refused(t, stderr, err, l.ServerDev, "te_other", "detach the interface")
	run("detach", l.ServerDev)
	run("attach", l.ServerDev)
	steersAgain(t, l, s)
	once(t, s, "the interface is lost")
	s.stop()
	run("detach", l.ServerDev)
}

// The network namespace of the peers is deleted under a server, and the interface
// with it: the server says so and ends when it is told to.
func TestPeerNamespaceDeleted(t *testing.T) {
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t), "--on-full", "wrap")
	steersAgain(t, l, s)
	stalled, err := l.Client.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	qt.Assert(t, qt.IsNil(err))
	_, err = stalled.Write([]byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhalf"))
	qt.Assert(t, qt.IsNil(err))
	defer stalled.Close()
	// The lab refers to its namespaces to its end; into one that nobody does
	// goes the other end of the pair.
	doomed, err := netlab.NewNetns()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(l.InClient(func() error {
		peer, err := netlink.LinkByName(l.ClientDev)
		if err != nil {
			return err
		}
		return netlink.LinkSetNsFd(peer, doomed.Fd())
	})))
	qt.Assert(t, qt.IsNil(doomed.Close()))
	waitFor(t, func() bool { return strings.Contains(portStatus(t, l).Lost, "gone") })
	once(t, s, "the interface is lost")
	s.stop()
}

// The name of the server's own namespace is deleted: the namespace lives as long as
// the server, which goes on, and goes when it ends.
func TestOwnNamespaceDeleted(t *testing.T) {
	l := newLab(t, netlab.Config{Named: true})
	s := serve(t, l, poolFile(t), "--on-full", "wrap")
	steersAgain(t, l, s)
	out, err := exec.Command("ip", "netns", "del", l.Server.Name()).CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	for range 5 {
		_, err := post(newClient(t, l), s.url, random(1<<20, 1))
		qt.Assert(t, qt.IsNil(err))
		time.Sleep(300 * time.Millisecond) // the NIC is looked at each second
	}
	qt.Check(t, qt.Equals(portStatus(t, l).Lost, ""))
	s.stop()
}
