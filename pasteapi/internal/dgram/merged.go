package dgram

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// mergedBatch is how many messages of merged datagrams one call reads.
	mergedBatch = 8
	// mergedSize is the longest of them, in bytes.
	mergedSize = 64 << 10
	// Of each tryAfter datagrams half have to follow one of the same sender and length
	// before a socket has the kernel merge them: to look for what to merge costs it, too.
	tryAfter = 256
)

// merged is where a socket's datagrams are received when the kernel has merged those of
// one sender (UDP_GRO): into memory that stays warm, from which each is copied into a
// frame of its own. The kernel's way from the NIC to the socket is then gone once for
// all of them.
type merged struct {
	mem   []byte
	msgs  [mergedBatch]mmsghdr
	iov   [mergedBatch]unix.Iovec
	names [mergedBatch]unix.RawSockaddrInet6
	ctl   [mergedBatch]control

	// What has no slot yet: from datagram at of message i on, of n.
	i, n, at int
}

// alike looks whether it would pay to have datagrams merged, and has it done. It never
// ends: what waits in the socket is merged then, and would not be taken apart.
func (r *Receiver) alike(s *Socket, n int) {
	for i := 1; i < n; i++ {
		a, b := &r.names[i-1], &r.names[i] // of IPv4, Flowinfo is the address
		if a.Port == b.Port && a.Flowinfo == b.Flowinfo && (!s.v6 || a.Addr == b.Addr) && r.msgs[i-1].len == r.msgs[i].len {
			s.same++
		}
	}
	if s.seen += n; s.seen < tryAfter {
		return
	}
	if s.same >= s.seen/2 {
		r.Syscalls++
		if unix.SetsockoptInt(s.FD, unix.IPPROTO_UDP, unix.UDP_GRO, 1) == nil {
			s.merged = &merged{mem: make([]byte, mergedBatch*mergedSize)}
		}
	}
	s.same, s.seen = 0, 0
}

// unmerge leaves the socket to others. What waits in it is dropped, as it may be merged.
func (s *Socket) unmerge() error {
	if s.merged == nil {
		return nil
	}
	s.merged = nil
	if err := unix.SetsockoptInt(s.FD, unix.IPPROTO_UDP, unix.UDP_GRO, 0); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	for range 1 << 16 {
		if _, _, err := unix.Recvfrom(s.FD, nil, unix.MSG_DONTWAIT|unix.MSG_TRUNC); err != nil {
			break
		}
	}
	return nil
}

// readMerged reads the next messages.
func (r *Receiver) readMerged(s *Socket) (int, unix.Errno) {
	m := s.merged
	for i := range m.msgs {
		m.iov[i].Base = &m.mem[i*mergedSize]
		m.iov[i].SetLen(mergedSize)
		h := &m.msgs[i].hdr
		*h = unix.Msghdr{Iov: &m.iov[i], Name: (*byte)(unsafe.Pointer(&m.names[i])), Namelen: uint32(unsafe.Sizeof(m.names[i])), Control: &m.ctl[i][0]}
		h.SetIovlen(1)
		h.SetControllen(len(m.ctl[i]))
	}
	r.Syscalls++
	got, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.FD), uintptr(unsafe.Pointer(&m.msgs[0])), mergedBatch,
		unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	m.i, m.n, m.at = 0, int(got), 0
	return int(got), 0
}

// split puts what was read into slots, as long as there are slots and frames.
func (r *Receiver) split(s *Socket, to Slots) (done bool) {
	m := s.merged
	for ; m.i < m.n; m.i, m.at = m.i+1, 0 {
		msg := m.mem[m.i*mergedSize:][:m.msgs[m.i].len]
		info, each := controls(m.ctl[m.i][:m.msgs[m.i].hdr.Controllen])
		if each == 0 {
			each = len(msg)
		}
		for first := true; first || m.at < len(msg); first = false {
			if to.Free() == 0 {
				return false
			}
			f, ok := r.frames.Take()
			if !ok {
				r.frames.Empty++
				return false
			}
			one := msg[m.at:min(m.at+each, len(msg))]
			n := copy(r.frames.Bytes(f)[s.doff():], one)
			r.fill(s, to, datagram{frame: f, full: len(one), n: n, name: &m.names[m.i], info: info})
			m.at += len(one)
		}
	}
	return true
}

// Merged says whether the kernel merges a socket's datagrams.
func (s *Socket) Merged() bool { return s.merged != nil }
