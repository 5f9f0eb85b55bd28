package dgram

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrorSize is the payload of a slot that tells an error: struct sock_extended_err
// (include/uapi/linux/errqueue.h), which begins with the errno.
const ErrorSize = 16

// Errno reads it.
func Errno(payload []byte) unix.Errno {
	if len(payload) < ErrorSize {
		return 0
	}
	return unix.Errno(binary.NativeEndian.Uint32(payload))
}

// tellErrors brings what the network said of datagrams that were sent: each is a slot
// whose source is the address that could not be reached. It says whether there may be
// more.
func (r *Receiver) tellErrors(s *Socket, to Slots) (more bool) {
	for to.Free() > 0 {
		var name unix.RawSockaddrInet6
		var ctl [128]byte
		var payload [1]byte
		iov := unix.Iovec{Base: &payload[0]}
		iov.SetLen(len(payload))
		h := unix.Msghdr{Iov: &iov, Name: (*byte)(unsafe.Pointer(&name)), Namelen: uint32(unsafe.Sizeof(name)), Control: &ctl[0]}
		h.SetIovlen(1)
		h.SetControllen(len(ctl))
		r.Syscalls++
		_, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(s.FD), uintptr(unsafe.Pointer(&h)), unix.MSG_DONTWAIT|unix.MSG_ERRQUEUE)
		if errno != 0 {
			return false
		}
		ee := extendedErr(ctl[:h.Controllen])
		if ee == nil {
			continue
		}
		f, ok := r.frames.Take()
		if !ok {
			r.frames.Empty++
			return false // as the kernel does when it has no memory for it
		}
		doff := s.doff()
		b := r.frames.Bytes(f)
		at := begin(b, s.v6, ErrorSize)
		at.setPeer(&name)
		at.setLocal(s, nil)
		copy(b[doff:], ee)
		r.Errors++
		r.frames.Shelve(to.FillDatagram(s.FD, f, doff, ErrorSize, FlagCopied|FlagDatagram|FlagError))
	}
	return true
}

// extendedErr finds the error among the control messages.
func extendedErr(ctl []byte) []byte {
	for len(ctl) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&ctl[0]))
		n := int(h.Len)
		if n < unix.SizeofCmsghdr || n > len(ctl) {
			return nil
		}
		v4 := h.Level == unix.IPPROTO_IP && h.Type == unix.IP_RECVERR
		v6 := h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_RECVERR
		if data := ctl[unix.SizeofCmsghdr:n]; (v4 || v6) && len(data) >= ErrorSize {
			return data[:ErrorSize]
		}
		ctl = ctl[min((n+7)&^7, len(ctl)):]
	}
	return nil
}
