// Package tap makes TAP devices whose frames have a virtio header in front, through
// which whole frames enter the kernel's stack, and leave it.
package tap

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Open creates a device in the calling thread's network namespace. The kernel finds a
// free number for the %d in the pattern. The device exists as long as the descriptor
// is open, which does not block.
func Open(pattern string) (fd int, name string, err error) {
	fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, "", openError(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.NewSyscallError("close", unix.Close(fd)))
			fd = -1
		}
	}()
	ifr, err := unix.NewIfreq(pattern)
	if err != nil {
		return fd, "", err
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return fd, "", fmt.Errorf("create a TAP device (needs CAP_NET_ADMIN): %w", os.NewSyscallError("ioctl TUNSETIFF", err))
	}
	return fd, ifr.Name(), nil
}

// openError says what a refused device is missing.
func openError(err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("open /dev/net/tun (this user must be allowed to read and to write it: capabilities do not help, but for CAP_DAC_OVERRIDE): %w", err)
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("open /dev/net/tun (needs the tun driver: `modprobe tun`): %w", err)
	}
	return fmt.Errorf("open /dev/net/tun: %w", err)
}
