package netmap

import (
	"errors"
	"fmt"
	"os"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/internal/tap"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// host is the way between the host's rings and the kernel: a TAP device beside the
// NIC, which goes with its descriptor.
type host struct {
	fd    int
	name  string
	progs *bpf.RawHost
}

// tapQueue is how many frames of the kernel's wait to be read at most.
const tapQueue = 4096

// openHost makes the device, in the calling thread's network namespace, and catches
// what the kernel sends by the NIC.
func openHost(nic bpf.NICInfo) (_ *host, err error) {
	h := &host{fd: -1}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open the host's rings of %s: %w", nic.Name, err), h.close())
		}
	}()
	if h.fd, h.name, err = tap.Open("nmh%d"); err != nil {
		return nil, err
	}
	l, err := netlink.LinkByName(h.name)
	if err != nil {
		return nil, err
	}
	// The device has no traffic of its own.
	err = os.WriteFile("/proc/sys/net/ipv6/conf/"+h.name+"/disable_ipv6", []byte("1"), 0)
	if errors.Is(err, os.ErrNotExist) { // no IPv6 in this kernel
		err = nil
	}
	err = errors.Join(err, netlink.LinkSetMTU(l, max(nic.MTU, 1500)), netlink.LinkSetARPOff(l),
		netlink.LinkSetTxQLen(l, tapQueue), netlink.LinkSetUp(l))
	if err != nil {
		return nil, fmt.Errorf("configure %s: %w", h.name, err)
	}
	h.progs, err = bpf.AttachRawHost(nic.Ifindex, l.Attrs().Index)
	return h, err
}

func (h *host) close() (err error) {
	if h.progs != nil {
		err = h.progs.Close()
	}
	if h.fd >= 0 {
		err = errors.Join(err, os.NewSyscallError("close", unix.Close(h.fd)))
	}
	h.fd = -1
	return err
}

// dropped is how many frames of the kernel's found the queue full.
func (h *host) dropped() (uint64, error) {
	l, err := netlink.LinkByName(h.name)
	if err != nil {
		return 0, fmt.Errorf("look up %s: %w", h.name, err)
	}
	return l.Attrs().Statistics.TxDropped, nil
}
