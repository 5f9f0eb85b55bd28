package dgram

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// doff is where the payloads of a socket begin.
func (s *Socket) doff() int {
	if s.v6 {
		return Doff6
	}
	return Doff4
}

// setPeer writes the sender.
func (f *fields) setPeer(name *unix.RawSockaddrInet6) {
	port := (*[2]byte)(unsafe.Pointer(&name.Port))
	copy(f.ports, port[:])
	if f.v6 {
		copy(f.src, name.Addr[:])
		if name.Scope_id != 0 {
			binary.BigEndian.PutUint32(f.ifindex, name.Scope_id)
		}
		return
	}
	v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
	copy(f.src, v4.Addr[:])
}

// setLocal writes the receiver: the socket's address, or the one that a control
// message says: in_pktinfo (interface, address of this host, destination) or
// in6_pktinfo (destination, interface).
func (f *fields) setLocal(s *Socket, info []byte) {
	binary.BigEndian.PutUint16(f.ports[2:], s.Local.Port())
	if !s.anyLocal || len(info) == 0 {
		if f.v6 {
			ip := s.Local.Addr().As16()
			copy(f.dst, ip[:])
		} else {
			ip := s.Local.Addr().As4()
			copy(f.dst, ip[:])
		}
		return
	}
	switch {
	case f.v6 && len(info) >= unix.SizeofInet6Pktinfo:
		copy(f.dst, info[:16])
		if binary.BigEndian.Uint32(f.ifindex) == 0 {
			binary.BigEndian.PutUint32(f.ifindex, binary.NativeEndian.Uint32(info[16:]))
		}
	case !f.v6 && len(info) >= unix.SizeofInet4Pktinfo:
		copy(f.dst, info[4:8])
		binary.BigEndian.PutUint32(f.ifindex, binary.NativeEndian.Uint32(info))
	}
}
