package bpf

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		os.Exit(helperMain())
	}
	goleak.VerifyTestMain(m)
}

// pair is a veth pair across two anonymous network namespaces. The test's
// goroutine is locked to a thread inside of the near one.
type pair struct {
	near, far         netns.NsHandle
	nic, peer         string
	nearAddr, farAddr string
}

var pairs atomic.Int32

// newPair moves the calling goroutine into a new network namespace with one
// end of a veth pair, until the test ends.
func newPair(t *testing.T) *pair {
	t.Helper()
	enterNetns(t)
	i := pairs.Add(1)
	p := &pair{
		nic: fmt.Sprintf("at%dn", i), peer: fmt.Sprintf("at%df", i),
		nearAddr: "10.77.0.1", farAddr: "10.77.0.2",
	}
	var err error
	p.near, err = netns.Get()
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { p.near.Close() })
	p.far, err = netns.New() // also enters it
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { p.far.Close() })
	qt.Assert(t, qt.IsNil(netns.Set(p.near)))

	la := netlink.NewLinkAttrs()
	la.Name = p.nic
	veth := &netlink.Veth{LinkAttrs: la, PeerName: p.peer, PeerNamespace: netlink.NsFd(p.far)}
	qt.Assert(t, qt.IsNil(netlink.LinkAdd(veth)))
	p.up(t, p.nic, p.nearAddr)
	p.inFar(t, func() { p.up(t, p.peer, p.farAddr) })
	return p
}

func (p *pair) up(t *testing.T, name, addr string) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	qt.Assert(t, qt.IsNil(err))
	a, err := netlink.ParseAddr(addr + "/24")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(netlink.AddrAdd(l, a)))
	qt.Assert(t, qt.IsNil(netlink.LinkSetUp(l)))
}

// inFar runs f on this thread in the far network namespace.
func (p *pair) inFar(t *testing.T, f func()) {
	t.Helper()
	qt.Assert(t, qt.IsNil(netns.Set(p.far)))
	defer func() { qt.Assert(t, qt.IsNil(netns.Set(p.near))) }()
	f()
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

// enterNetns moves the calling goroutine into a new network namespace until
// the test ends.
func enterNetns(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	old, err := netns.Get()
	qt.Assert(t, qt.IsNil(err))
	ns, err := netns.New()
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() {
		ns.Close()
		// A thread that cannot return stays locked and dies with its goroutine.
		if netns.Set(old) == nil {
			runtime.UnlockOSThread()
		}
		old.Close()
	})
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
