//go:build preload

// Libpaste-netmap-core is package netmapdev for C: the part of libpaste-netmap that
// is written in Go. libpaste-netmap.so loads it when a program opens /dev/netmap for
// the first time. What it exports is declared in ../preload/core.h.
//
// Functions return 0 or more, or a negative error number.
package main

/*
#include <poll.h>
#include <stdint.h>
*/
import "C"

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"unsafe"

	"github.com/pastenet/paste/internal/netmapdev"
	"golang.org/x/sys/unix"
)

var device = sync.OnceValues(func() (*netmapdev.Device, error) {
	o, err := netmapdev.OptionsFromEnv()
	if err != nil {
		return nil, err
	}
	level := slog.LevelWarn
	if o.Verbose {
		level = slog.LevelDebug
	}
	o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	return netmapdev.New(o), nil
})

func main() {}

// negative is an error as C gets it.
func negative(err error) C.int {
	var errno unix.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno):
		return -C.int(errno)
	}
	return -C.int(unix.EIO)
}

//export paste_open
func paste_open(cloexec C.int) C.int {
	d, err := device()
	if err != nil {
		fmt.Fprintln(os.Stderr, "libpaste-netmap:", err)
		return -C.int(unix.EINVAL)
	}
	fd, err := d.Open(cloexec != 0)
	if err != nil {
		return negative(err)
	}
	return C.int(fd)
}

// get is the device, which paste_open has made.
func get() *netmapdev.Device {
	d, _ := device()
	return d
}

//export paste_ioctl
func paste_ioctl(fd C.int, cmd C.ulong, arg C.uintptr_t) C.int {
	f := get().File(int(fd))
	if f == nil {
		return -C.int(unix.EBADF)
	}
	return -C.int(f.Ioctl(uint64(cmd), uint64(arg)))
}

// paste_wake is the descriptor to sleep on instead of a bound file's, which is one
// wake-up more, or the file's.
//
//export paste_wake
func paste_wake(fd C.int) C.int {
	f := get().File(int(fd))
	if f == nil {
		return -C.int(unix.EBADF)
	}
	return C.int(f.Wake())
}

//export paste_mmap
func paste_mmap(fd C.int, size, off C.uint64_t, at *C.uintptr_t) C.int {
	f := get().File(int(fd))
	if f == nil {
		return -C.int(unix.EBADF)
	}
	addr, err := f.Mmap(uint64(size), uint64(off))
	*at = C.uintptr_t(addr)
	return negative(err)
}

//export paste_unmap
func paste_unmap(addr, size C.uintptr_t) C.int {
	if get().Unmap(uintptr(addr), uintptr(size)) {
		return 1
	}
	return 0
}

//export paste_close
func paste_close(fd C.int) C.int {
	closed, err := get().Close(int(fd))
	if closed && err == nil {
		return 1
	}
	return negative(err)
}

// paste_poll looks at those of the descriptors that are files of the device, and
// returns how many of them have something. In *soon are the nanoseconds after which
// to look again although no descriptor is readable; 0: need not be.
//
//export paste_poll
func paste_poll(fds *C.struct_pollfd, n C.ulong, soon *C.int64_t) C.int {
	d, ready := get(), C.int(0)
	*soon = 0
	all := unsafe.Slice(fds, int(n))
	for i := range all {
		p := &all[i]
		f := d.File(int(p.fd))
		if f == nil {
			continue
		}
		found, again := f.Poll(int16(p.events))
		if p.revents = C.short(found); found != 0 {
			ready++
		}
		if again != 0 && (*soon == 0 || C.int64_t(again) < *soon) {
			*soon = C.int64_t(again)
		}
	}
	return ready
}
