package netmapdev

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// File is one open /dev/netmap.
type File struct {
	d     *Device
	fd    int
	bound atomic.Pointer[binding]
}

// binding is what the file is bound to, or nil.
func (f *File) binding() binding {
	if b := f.bound.Load(); b != nil {
		return *b
	}
	return nil
}

// Wake is the one descriptor that wakes the file's rings, if it is one, or else the
// file's own.
func (f *File) Wake() int {
	if b := f.binding(); b != nil {
		if fds := b.wakes(); len(fds) == 1 {
			return fds[0]
		}
	}
	return f.fd
}

// Mmap is the address of the file's memory. Everything is mapped already, where the
// kernel has put it: the program cannot choose.
func (f *File) Mmap(size, off uint64) (uintptr, error) {
	b := f.binding()
	if b == nil {
		return 0, unix.EINVAL
	}
	m := b.where()
	if off%page != 0 || off > m.size || size > m.size-off || size == 0 {
		return 0, fmt.Errorf("map %d bytes at %d of a memory of %d: %w", size, off, m.size, unix.EINVAL)
	}
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	m.mapped = true
	return m.base + uintptr(off), nil
}

// Sync is NIOCTXSYNC or NIOCRXSYNC. A broken ring is repaired, and no error, as netmap
// has it.
func (f *File) Sync(tx bool) error {
	b := f.binding()
	if b == nil {
		return unix.ENXIO
	}
	if err := b.sync(tx); err != nil && !errors.Is(err, pasteapi.ErrRingCorrupt) {
		return fmt.Errorf("sync: %w: %w", err, unix.EIO)
	}
	return nil
}

// Events of poll(2); those with NORM are not in package unix.
const (
	wantTX = unix.POLLOUT | 0x100
	wantRX = unix.POLLIN | 0x40
)

// Poll does what netmap's poll does before it sleeps, and says which of the events
// are there. Sleeping is up to the caller: the file's descriptor is readable when
// Poll may find more, and soon, if it is not 0, is when to call it again although it
// is not.
func (f *File) Poll(events int16) (found int16, soon time.Duration) {
	b := f.binding()
	if b == nil {
		return unix.POLLERR, 0
	}
	return b.poll(events)
}

// bind makes the file the owner of a binding.
func (f *File) bind(b binding) error {
	for _, fd := range b.wakes() {
		ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
		if err := unix.EpollCtl(f.fd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
			return os.NewSyscallError("epoll_ctl", err)
		}
	}
	f.bound.Store(&b)
	return nil
}

// unbind undoes NETMAP_REQ_REGISTER. It is called under the device's lock.
func (f *File) unbind() error {
	b := f.bound.Swap(nil)
	if b == nil {
		return nil
	}
	m := (*b).where()
	return errors.Join((*b).release(), f.d.drop(m))
}
