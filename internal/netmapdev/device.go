package netmapdev

import (
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// Options say what a device serves with.
type Options struct {
	// PoolSize of the memory that ports share which ask for no other, bytes; 0 =
	// 128 MiB.
	PoolSize int64
	// FrameSize of its buffers, bytes; 0 = 2048.
	FrameSize int
	// PoolFile has that memory in a file, which is made if it is not there. "":
	// it is gone with the process.
	PoolFile string
	// Receive is how TCP ports receive.
	Receive pasteapi.ReceiveMode
	// BPFFS is where `pastectl attach` pinned NICs.
	BPFFS string
	// Verbose has the logger told of every request that is refused, and not only
	// of those whose error number leaves the reader in the dark.
	Verbose bool
	// Logger is told why requests were refused. nil = slog.Default().
	Logger *slog.Logger
}

// descriptors is the number of the first descriptor that cannot be a file.
const descriptors = 1 << 16

// Device is /dev/netmap.
type Device struct {
	opts  Options
	files [descriptors]atomic.Pointer[File] // by descriptor

	mu       sync.Mutex // of requests
	memories map[uint16]*memory
	lastMem  uint16
	ports    map[string]*pst
	attached map[string]*memory // of NICs on switches, by the port's name
	sockets  sync.Map           // descriptor of a registered socket: *pstRing
}

// New returns a device without ports.
func New(o Options) *Device {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &Device{opts: o, memories: map[uint16]*memory{}, ports: map[string]*pst{}, attached: map[string]*memory{}}
}

// Open makes a file and returns its descriptor.
func (d *Device) Open(cloexec bool) (int, error) {
	flags := 0
	if cloexec {
		flags = unix.EPOLL_CLOEXEC
	}
	fd, err := unix.EpollCreate1(flags)
	if err != nil {
		return -1, os.NewSyscallError("epoll_create", err)
	}
	if fd >= descriptors {
		return -1, errors.Join(unix.EMFILE, unix.Close(fd))
	}
	d.files[fd].Store(&File{d: d, fd: fd})
	return fd, nil
}

// File is the file behind a descriptor, or nil.
func (d *Device) File(fd int) *File {
	if fd < 0 || fd >= descriptors {
		return nil
	}
	return d.files[fd].Load()
}

// Close closes a file, or a socket that is registered with a TCP port. It says
// whether the descriptor is closed now or will be: if not, the caller has to.
func (d *Device) Close(fd int) (closed bool, err error) {
	f := d.File(fd)
	if f == nil {
		return d.closeSocket(fd)
	}
	d.files[fd].Store(nil)
	d.mu.Lock()
	defer d.mu.Unlock()
	return true, errors.Join(f.unbind(), os.NewSyscallError("close", unix.Close(fd)))
}

// Unmap is munmap of a range of addresses, if a part of it is memory of a port, and says
// whether it is: then there is nothing more to do. A port's own memory goes with the
// port; the program's, which it has lent, is unmapped when no port has it any more.
func (d *Device) Unmap(addr, size uintptr) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.memories {
		if !m.touches(addr, size) {
			continue
		}
		m.mapped = false
		if m.lent {
			m.unwanted = append(m.unwanted, [2]uintptr{addr, size})
		}
		return true
	}
	return false
}

// at is memory at an address as a structure.
func at[T any](b []byte) *T { return (*T)(unsafe.Pointer(&b[0])) }
