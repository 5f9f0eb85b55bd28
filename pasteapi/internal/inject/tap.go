package inject

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/pastenet/paste/internal/tap"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tapMTU lets every frame that fits a buffer through.
const tapMTU = 9216

// Tap is the device through which frames enter the kernel's TCP: a TAP in the
// network namespace of the NIC, with an address on no network. What is written
// to its descriptor is received on it. It exists as long as the descriptor is
// open, so it disappears with the process, however that ends, and nothing but
// the descriptor's owner can make it receive anything.
type Tap struct {
	fd      int
	name    string
	ifindex int
	mac     [6]byte
}

// OpenTap creates a device in the calling thread's network namespace.
func OpenTap() (_ *Tap, err error) {
	fd, name, err := tap.Open("pst%d")
	if err != nil {
		return nil, err
	}
	t := &Tap{fd: fd, name: name}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	if err := t.configure(); err != nil {
		return nil, fmt.Errorf("configure injection device %s: %w", t.name, err)
	}
	return t, nil
}

func (t *Tap) configure() error {
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
		err := os.WriteFile("/proc/sys/net/"+fmt.Sprintf(path, t.name), []byte(value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // no IPv6 in this kernel
			return err
		}
	}
	link, err := netlink.LinkByName(t.name)
	if err != nil {
		return err
	}
	t.ifindex = link.Attrs().Index
	copy(t.mac[:], link.Attrs().HardwareAddr)
	if err := netlink.LinkSetMTU(link, tapMTU); err != nil {
		return fmt.Errorf("set mtu: %w", err)
	}
	if err := netlink.LinkSetARPOff(link); err != nil {
		return fmt.Errorf("switch arp off: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}

// Ifindex is the device's index in its network namespace.
func (t *Tap) Ifindex() int { return t.ifindex }

// Close removes the device. It may be called twice.
func (t *Tap) Close() error {
	if t.fd < 0 {
		return nil
	}
	err := unix.Close(t.fd)
	t.fd = -1
	return os.NewSyscallError("close", err)
}
