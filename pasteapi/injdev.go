package pasteapi

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// injectionMTU lets every frame that fits a buffer through the pair.
const injectionMTU = 9216

// injectionDev is the veth pair through which frames enter the kernel's TCP.
// One end is in the namespace of the NIC and has an address on no network; its
// ingress carries the tagger. The other end, where the AF_XDP sockets
// transmit, is alone in a network namespace that only this process holds. So
// the pair disappears with the process, however it ends, and nothing but our
// sockets can send into it.
type injectionDev struct {
	ns      int // network namespace of the transmitting end
	name    string
	ifindex int     // receiving end
	mac     [6]byte // of the receiving end
	txIndex int     // transmitting end
}

func newInjectionDev(queues int) (_ *injectionDev, err error) {
	d := &injectionDev{}
	if d.ns, err = newNetns(); err != nil {
		return nil, fmt.Errorf("create injection namespace: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if err := d.createPair(queues); err != nil {
		return nil, fmt.Errorf("create injection device: %w", err)
	}
	if err := d.configure(); err != nil {
		return nil, fmt.Errorf("configure injection device %s: %w", d.name, err)
	}
	return d, nil
}

// newNetns makes a network namespace and returns a descriptor that keeps it.
func newNetns() (fd int, err error) {
	fd = -1
	err = onThrowawayThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		// No router solicitations, no duplicate address detection into our TCP.
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return os.NewSyscallError("open", err)
	})
	return fd, err
}

// inNetns runs f on a thread that is in the network namespace.
func inNetns(ns int, f func() error) error {
	return onThrowawayThread(func() error {
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("setns", err)
		}
		return f()
	})
}

// onThrowawayThread runs f on an operating system thread that ends with it, so
// that whatever f does to the thread's namespaces reaches nobody else.
func onThrowawayThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		done <- f()
	}()
	return <-done
}

func (d *injectionDev) createPair(queues int) error {
	for try := 0; ; try++ {
		var id [3]byte
		rand.Read(id[:])
		d.name = "pst" + hex.EncodeToString(id[:])
		attrs := netlink.NewLinkAttrs()
		attrs.Name = d.name
		attrs.MTU = injectionMTU
		attrs.NumTxQueues, attrs.NumRxQueues = queues, queues
		attrs.TxQLen = 1000
		err := netlink.LinkAdd(&netlink.Veth{
			LinkAttrs:       attrs,
			PeerName:        "pst1",
			PeerNamespace:   netlink.NsFd(d.ns),
			PeerMTU:         injectionMTU,
			PeerNumTxQueues: uint32(queues),
			PeerNumRxQueues: uint32(queues),
		})
		if errors.Is(err, unix.EEXIST) && try < 10 {
			continue
		}
		if err != nil {
			return fmt.Errorf("add veth pair (needs CAP_NET_ADMIN and the veth driver): %w", err)
		}
		break
	}
	link, err := netlink.LinkByName(d.name)
	if err != nil {
		return err
	}
	d.ifindex = link.Attrs().Index
	copy(d.mac[:], link.Attrs().HardwareAddr)
	return nil
}

func (d *injectionDev) configure() error {
	// Packets come in here although their sender is reached through the NIC. A
	// reverse-path filter must therefore be off or loose; the kernel takes the
	// greater of this value and conf/all, and 2 is loose.
	filter := "0"
	if all, err := os.ReadFile("/proc/sys/net/ipv4/conf/all/rp_filter"); err == nil && strings.TrimSpace(string(all)) != "0" {
		filter = "2"
	}
	settings := map[string]string{
		"ipv4/conf/%s/rp_filter":     filter,
		"ipv6/conf/%s/accept_ra":     "0",
		"ipv6/conf/%s/accept_dad":    "0",
		"ipv6/conf/%s/addr_gen_mode": "1", // no link-local address
		"ipv6/conf/%s/disable_ipv6":  "0",
	}
	for path, value := range settings {
		err := os.WriteFile("/proc/sys/net/"+fmt.Sprintf(path, d.name), []byte(value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // no IPv6 in this kernel
			return err
		}
	}
	rx, err := netlink.LinkByIndex(d.ifindex)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetARPOff(rx); err != nil {
		return fmt.Errorf("switch arp off: %w", err)
	}
	if err := netlink.LinkSetUp(rx); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return inNetns(d.ns, func() error {
		tx, err := netlink.LinkByName("pst1")
		if err != nil {
			return err
		}
		d.txIndex = tx.Attrs().Index
		if err := netlink.LinkSetARPOff(tx); err != nil {
			return fmt.Errorf("switch arp off: %w", err)
		}
		if err := netlink.LinkSetUp(tx); err != nil {
			return fmt.Errorf("set up: %w", err)
		}
		return waitUp(tx.Attrs().Index)
	})
}

// waitUp waits for the carrier, which follows both ends being up at once.
func waitUp(index int) error {
	for deadline := time.Now().Add(5 * time.Second); ; {
		l, err := netlink.LinkByIndex(index)
		if err != nil {
			return err
		}
		if l.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no carrier on %s after 5 s", l.Attrs().Name)
		}
		time.Sleep(time.Millisecond)
	}
}

// Close removes the pair. It may be called twice.
func (d *injectionDev) Close() error {
	var errs []error
	if d.ifindex != 0 {
		link, err := netlink.LinkByIndex(d.ifindex)
		if err == nil {
			err = netlink.LinkDel(link)
		}
		var gone netlink.LinkNotFoundError
		if err != nil && !errors.As(err, &gone) {
			errs = append(errs, fmt.Errorf("remove injection device %s: %w", d.name, err))
		}
		d.ifindex = 0
	}
	if d.ns > 0 {
		errs = append(errs, os.NewSyscallError("close", unix.Close(d.ns)))
		d.ns = -1
	}
	return errors.Join(errs...)
}
