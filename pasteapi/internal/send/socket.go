package send

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const sendFlags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL

// Counters count since the ring was opened.
type Counters struct {
	Syscalls    uint64 // system calls made to send
	Batches     uint64 // io_uring submissions
	Sends       uint64 // sends, one for each connection of a batch
	Slots       uint64 // slots in these
	Bytes       uint64 // taken by the kernel
	Postponed   uint64 // slots that waited for their peer
	Dropped     uint64 // slots for sockets that are not registered
	FailedConns uint64 // connections given up
}

// send writes to a socket without blocking: bytes taken, or a negative errno as
// io_uring has it.
func (c *Counters) send(fd int, b []byte) int {
	c.Syscalls++
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])),
		uintptr(len(b)), sendFlags, 0, 0)
	if errno != 0 {
		return -int(errno)
	}
	return int(n)
}

// sendMsg is send of several buffers.
func (c *Counters) sendMsg(fd int, m *unix.Msghdr) int {
	c.Syscalls++
	n, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(m)), sendFlags)
	if errno != 0 {
		return -int(errno)
	}
	return int(n)
}

// busy says whether a send's result means that the socket is full.
func busy(res int) bool {
	return res == -int(unix.EAGAIN) || res == -int(unix.EINTR) || res == -int(unix.ENOBUFS)
}
