package netmapdev

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// copyIn and copyOut copy between the program's memory at an address and a value
// of ours. A bad address is EFAULT, as of any system call, and no crash.
func copyIn(to []byte, addr uint64) unix.Errno {
	return move(to, addr, unix.ProcessVMReadv)
}

func copyOut(addr uint64, from []byte) unix.Errno {
	return move(from, addr, unix.ProcessVMWritev)
}

func move(ours []byte, addr uint64, call func(int, []unix.Iovec, []unix.RemoteIovec, uint) (int, error)) unix.Errno {
	if len(ours) == 0 {
		return 0
	}
	local := []unix.Iovec{{Base: &ours[0], Len: uint64(len(ours))}}
	n, err := call(os.Getpid(), local, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(ours)}}, 0)
	if errno, ok := err.(unix.Errno); ok && errno != unix.EFAULT {
		return errno // a filter of system calls forbids it, for example
	}
	if err != nil || n != len(ours) {
		return unix.EFAULT
	}
	return 0
}

// bytesOf is the memory of a structure.
func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}
