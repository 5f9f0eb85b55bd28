package netmap_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/internal/testwait"
	"github.com/pastenet/paste/netmap"
	"github.com/vishvananda/netlink"
)

// helperEnv makes the test binary a process that opens ports, and is killed.
const helperEnv = "NETMAP_TEST_OPEN"

func helperMain() int {
	for _, name := range strings.Fields(os.Getenv(helperEnv)) {
		if _, err := netmap.Open(context.Background(), name, netmap.Options{}); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	fmt.Println("open")
	for { // select {} would be a deadlock where there is no cgo
		time.Sleep(time.Hour)
	}
}

// openElsewhere has a process in the server's namespace open ports, by names with blanks
// between them, and returns when it has.
func openElsewhere(t *testing.T, l *netlab.Lab, names string) *netlab.Cmd {
	t.Helper()
	cmd := l.ServerCommand(context.Background(), "env", helperEnv+"="+names, os.Args[0])
	out, err := cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Start()))
	line, err := bufio.NewReader(out).ReadString('\n')
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(line, "open\n"))
	return cmd
}

// TestKilled has a NIC as it was before, however the process ends: with its host's
// rings, and again when another process has opened it.
func TestKilled(t *testing.T) {
	l := netlabtest.New(t, netlab.Config{Prefix: "nm"})
	name := "netmap:" + l.ServerDev
	for range 2 {
		cmd := openElsewhere(t, l, name+"* "+name+"{1")
		xdp, tcx, taps := attached(t, l)
		qt.Check(t, qt.DeepEquals([]int{xdp, tcx, taps}, []int{1, 1, 1}))
		_, err := tryOpen(t, l.Server, name, netmap.Options{})
		qt.Check(t, qt.IsNotNil(err), qt.Commentf("another process has it"))

		qt.Assert(t, qt.IsNil(cmd.Process.Kill()))
		_ = cmd.Wait()
		testwait.Until(t, "nothing to be left", func() bool {
			xdp, tcx, taps := attached(t, l)
			return xdp+tcx+taps == 0
		})
		reachable(t, l)
	}
	p := openIn(t, l.Server, name+"*", netmap.Options{})
	qt.Assert(t, qt.IsNil(p.Close()))
	xdp, tcx, taps := attached(t, l)
	qt.Check(t, qt.DeepEquals([]int{xdp, tcx, taps}, []int{0, 0, 0}))
	reachable(t, l)
}

// attached counts what raw ports leave on the server's NIC while they are open.
func attached(t *testing.T, l *netlab.Lab) (xdp, tcx, taps int) {
	t.Helper()
	netlabtest.In(t, l.Server, func() {
		links, err := netlink.LinkList()
		qt.Assert(t, qt.IsNil(err))
		for _, dev := range links {
			a := dev.Attrs()
			if strings.HasPrefix(a.Name, "nmh") {
				taps++
			}
			if a.Name != l.ServerDev {
				continue
			}
			if a.Xdp != nil && a.Xdp.AttachMode != 0 {
				xdp++
			}
			for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
				r, err := link.QueryPrograms(link.QueryOptions{Target: a.Index, Attach: at})
				qt.Assert(t, qt.IsNil(err))
				tcx += len(r.Programs)
			}
		}
	})
	return xdp, tcx, taps
}

// reachable has the kernels of both ends talk to each other.
func reachable(t *testing.T, l *netlab.Lab) {
	t.Helper()
	var lis net.Listener
	var err error
	netlabtest.In(t, l.Server, func() { lis, err = net.Listen("tcp", l.ServerIP4.String()+":0") })
	qt.Assert(t, qt.IsNil(err))
	defer lis.Close()
	netlabtest.In(t, l.Client, func() {
		c, err := net.Dial("tcp", lis.Addr().String())
		qt.Assert(t, qt.IsNil(err))
		c.Close()
	})
}
