package bpf

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		os.Exit(helperMain())
	}
	goleak.VerifyTestMain(m)
}

// pair is a veth pair across two network namespaces. The test's goroutine is
// locked to a thread inside of the near one.
type pair struct {
	far               *netlab.Netns
	nic, peer         string
	nearAddr, farAddr string
}

// newPair moves the calling goroutine into a network namespace with one end of a
// veth pair, until the test ends.
func newPair(t *testing.T) *pair {
	t.Helper()
	l := netlabtest.New(t, netlab.Config{Prefix: "at"})
	netlabtest.Enter(t, l.Server)
	return &pair{
		far: l.Client, nic: l.ServerDev, peer: l.ClientDev,
		nearAddr: l.ServerIP4.String(), farAddr: l.ClientIP4.String(),
	}
}

// inFar runs f on this thread in the far network namespace.
func (p *pair) inFar(t *testing.T, f func()) {
	t.Helper()
	netlabtest.In(t, p.far, f)
}

// setMTU sets the MTU of both ends.
func (p *pair) setMTU(t *testing.T, mtu int) {
	t.Helper()
	set := func(name string) {
		l, err := netlink.LinkByName(name)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(netlink.LinkSetMTU(l, mtu)))
	}
	set(p.nic)
	p.inFar(t, func() { set(p.peer) })
}

// xdp returns the id of the XDP program on the near NIC, 0 if there is none.
func (p *pair) xdp(t *testing.T) uint32 {
	t.Helper()
	n, err := lookupNIC(p.nic)
	qt.Assert(t, qt.IsNil(err))
	return n.xdpProg
}

// bpffsDir is an empty directory that is no bpffs yet; whatever the test left
// mounted there is an error.
func bpffsDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bpf")
	qt.Assert(t, qt.IsNil(os.Mkdir(dir, 0o755)))
	t.Cleanup(func() {
		if mounted, _ := isBPFFS(dir); mounted {
			t.Errorf("%s is still mounted", dir)
			unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return dir
}
