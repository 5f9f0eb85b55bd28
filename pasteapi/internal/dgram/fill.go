package dgram

import (
	"encoding/binary"
	"unsafe"

	"github.com/pastenet/paste/pasteapi/internal/trace"
	"golang.org/x/sys/unix"
)

// datagram is one that was received into a frame.
type datagram struct {
	frame   uint32
	full, n int // its length, and how much of it is in the frame
	name    *unix.RawSockaddrInet6
	info    []byte // where it was sent to, if it says
}

// datagram is number i of the batch.
func (r *Receiver) datagram(s *Socket, i int) datagram {
	m := &r.msgs[i]
	full := int(m.len) // also where not all of it was read
	info, _ := controls(r.ctl[i][:m.hdr.Controllen])
	return datagram{r.to[i], full, min(full, r.frames.Size()-s.doff()), &r.names[i], info}
}

// fill puts a datagram into a slot.
func (r *Receiver) fill(s *Socket, to Slots, d datagram) {
	flags := uint16(FlagCopied | FlagDatagram)
	if d.full > d.n {
		flags |= FlagTruncated
		r.Truncated++
	}
	f := begin(r.frames.Bytes(d.frame), s.v6, d.full)
	f.setPeer(d.name)
	f.setLocal(s, d.info)
	r.Received++
	r.Bytes += uint64(d.full)
	if r.trace.On() {
		traced(r.trace, trace.Read, s, r.frames.Bytes(d.frame), s.doff(), d.n)
	}
	r.frames.Shelve(to.FillDatagram(s.FD, d.frame, s.doff(), d.n, flags))
}

// controls finds in control messages where a datagram was sent to (in_pktinfo or
// in6_pktinfo), and how long each is of those that were merged; 0 if none were.
func controls(ctl []byte) (info []byte, each int) {
	for len(ctl) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&ctl[0]))
		n := int(h.Len)
		if n < unix.SizeofCmsghdr || n > len(ctl) {
			break
		}
		data := ctl[unix.SizeofCmsghdr:n]
		switch {
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			each = int(binary.NativeEndian.Uint32(data))
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO, h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO:
			info = data
		}
		ctl = ctl[min((n+7)&^7, len(ctl)):]
	}
	return info, each
}
