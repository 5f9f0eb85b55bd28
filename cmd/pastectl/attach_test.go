package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/vishvananda/netlink"
)

// mustJSON runs one command line and decodes what it printed into v.
func mustJSON(t *testing.T, v any, args ...string) int {
	t.Helper()
	code, stdout, stderr := pastectl(args...)
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(stdout), v)), qt.Commentf("stdout %q, stderr %q", stdout, stderr))
	return code
}

// nicInNetns moves the test into a network namespace with a veth pair at0, at1,
// and sets PASTE_BPFFS to an empty directory.
func nicInNetns(t *testing.T) (dir string) {
	t.Helper()
	netlabtest.Enter(t, netlabtest.NewNetns(t))
	la := netlink.NewLinkAttrs()
	la.Name = "at0"
	veth := &netlink.Veth{LinkAttrs: la, PeerName: "at1"}
	qt.Assert(t, qt.IsNil(netlink.LinkAdd(veth)))
	t.Cleanup(func() { netlink.LinkDel(veth) })

	dir = filepath.Join(t.TempDir(), "bpf")
	qt.Assert(t, qt.IsNil(os.Mkdir(dir, 0o755)))
	t.Setenv("PASTE_BPFFS", dir)
	return dir
}

func TestAttachStatusDetach(t *testing.T) {
	nicInNetns(t)

	code, stdout, _ := pastectl("status")
	qt.Assert(t, qt.Equals(code, exitOK))
	qt.Check(t, qt.StringContains(stdout, "no interface"))

	code, stdout, stderr := pastectl("attach", "at0")
	qt.Assert(t, qt.Equals(code, exitOK), qt.Commentf("%s", stderr))
	qt.Check(t, qt.Equals(stdout, "at0: attached in native mode, 1 RX queue, MTU 1500\n"))

	var again attachResult
	qt.Assert(t, qt.Equals(mustJSON(t, &again, "attach", "at0", "--json"), exitOK))
	qt.Check(t, qt.IsTrue(again.AlreadyAttached))
	qt.Check(t, qt.Equals(again.Mode, bpf.ModeNative))
	qt.Check(t, qt.IsTrue(again.Pinned))

	code, _, stderr = pastectl("attach", "at0", "--mode", "generic")
	qt.Check(t, qt.Equals(code, exitError))
	assertSentence(t, stderr)
	qt.Check(t, qt.StringContains(stderr, "pastectl detach at0"))

	code, stdout, _ = pastectl("status", "at0")
	qt.Assert(t, qt.Equals(code, exitOK))
	qt.Check(t, qt.StringContains(stdout, "at0: attached until detach, native mode"))
	var st status
	qt.Assert(t, qt.Equals(mustJSON(t, &st, "status", "--json"), exitOK))
	qt.Assert(t, qt.HasLen(st.Attached, 1))
	qt.Check(t, qt.Equals(st.Attached[0].SteerInfo, again.SteerInfo))
	for _, name := range []string{"redirect", "pass_port", "pass_control"} {
		n, ok := st.Attached[0].Counters[name]
		qt.Check(t, qt.IsTrue(ok && n == 0), qt.Commentf("%s", name))
	}
	qt.Check(t, qt.HasLen(st.Ports, 0))

	code, stdout, _ = pastectl("detach", "at0")
	qt.Assert(t, qt.Equals(code, exitOK))
	qt.Check(t, qt.Equals(stdout, "at0: detached\n"))
	l, err := netlink.LinkByName("at0")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(l.Attrs().Xdp == nil || !l.Attrs().Xdp.Attached))

	for _, line := range [][]string{{"detach", "at0"}, {"status", "at0"}, {"attach", "at9"}, {"detach", "at9"}, {"status", "at9"}} {
		code, stdout, stderr := pastectl(line...)
		qt.Check(t, qt.Equals(code, exitError))
		qt.Check(t, qt.Equals(stdout, ""))
		assertSentence(t, stderr)
		qt.Check(t, qt.StringContains(stderr, line[1]))
	}
}

func TestStatusOfStaleNIC(t *testing.T) {
	nicInNetns(t)
	code, _, stderr := pastectl("attach", "at0", "--mode", "generic")
	qt.Assert(t, qt.Equals(code, exitOK), qt.Commentf("%s", stderr))
	l, err := netlink.LinkByName("at0")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(netlink.LinkDel(l)))
	code, stdout, _ := pastectl("status")
	qt.Assert(t, qt.Equals(code, exitOK))
	qt.Check(t, qt.StringContains(stdout, "at0: the interface is gone"))
	code, _, stderr = pastectl("detach", "at0")
	qt.Assert(t, qt.Equals(code, exitOK), qt.Commentf("%s", stderr))
}
