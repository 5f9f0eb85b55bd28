package dgram

import (
	"encoding/binary"
	"unsafe"

	"github.com/pastenet/paste/pasteapi/internal/frames"
	"github.com/pastenet/paste/pasteapi/internal/trace"
	"golang.org/x/sys/unix"
)

// TxSlots is where datagrams come from: the TX ring.
type TxSlots interface {
	// Datagram returns a slot's buffer, and where its payload begins and ends.
	Datagram(i uint32) (frame uint32, doff, end int)
	// Exchange puts another buffer into a slot; the old one is the caller's.
	Exchange(i, frame uint32)
}

// Watcher tells of room in a socket.
type Watcher interface {
	WantRoom(fd int, yes bool) error
}

// Sender puts the datagrams of TX slots into sockets. It belongs to the ring's
// goroutine.
type Sender struct {
	*Counters
	frames  *frames.Frames
	slots   TxSlots
	watch   Watcher
	trace   *trace.Tap
	batch   []*Socket // that have slots to send
	blocked map[*Socket]struct{}

	items [batch]item
	msgs  [batch]mmsghdr
	iov   [batch]unix.Iovec
	names [batch]unix.RawSockaddrInet6
	ctl   [batch]control
}

// NewSender returns a sender of a TX ring.
func NewSender(f *frames.Frames, s TxSlots, w Watcher, c *Counters) *Sender {
	return &Sender{frames: f, slots: s, watch: w, trace: trace.Off, Counters: c, blocked: map[*Socket]struct{}{}}
}

// Add puts a slot into the batch.
func (s *Sender) Add(to *Socket, i uint32) {
	if len(to.slots) == 0 {
		s.batch = append(s.batch, to)
	}
	to.slots = append(to.slots, i)
}

// Send sends the batch, in order for each socket. It never blocks. What a full socket
// does not take is taken out of its slots.
func (s *Sender) Send() {
	for _, to := range s.batch {
		rest := to.slots
		for len(rest) > 0 && len(to.queue) == 0 {
			n := min(batch, len(rest))
			for i, slot := range rest[:n] {
				frame, doff, end := s.slots.Datagram(slot)
				s.items[i] = item{frame, uint16(doff), uint16(end)}
			}
			taken, full := s.send(to, n)
			rest = rest[taken:]
			if full {
				break
			}
		}
		for _, slot := range rest {
			s.postpone(to, slot)
		}
		to.slots = to.slots[:0]
	}
	clear(s.batch)
	s.batch = s.batch[:0]
}

// postpone takes the buffer of a slot into the socket's queue.
func (s *Sender) postpone(to *Socket, slot uint32) {
	frame, doff, end := s.slots.Datagram(slot)
	if len(to.queue) >= queueLimit {
		s.Dropped++
		return
	}
	other, err := s.frames.Replace(frame)
	if err != nil {
		s.Dropped++
		return
	}
	s.slots.Exchange(slot, other)
	to.queue = append(to.queue, item{frame, uint16(doff), uint16(end)})
	s.blocked[to] = struct{}{}
	_ = s.Await(to, true) // a descriptor that was closed: its end is told elsewhere
}

// Await has the waiter tell of room in a socket while datagrams wait for it, or the
// application does.
func (s *Sender) Await(to *Socket, yes bool) error {
	yes = yes || len(to.queue) > 0
	if yes == to.awaiting {
		return nil
	}
	to.awaiting = yes
	return s.watch.WantRoom(to.FD, yes)
}

// send sends the first n items, and returns how many are done with, and whether the
// socket is full. One that the kernel refuses is done with, too.
func (s *Sender) send(to *Socket, n int) (taken int, full bool) {
	for i := range n {
		s.prepare(to, i)
	}
	for retried := -1; taken < n; {
		s.Syscalls++
		got, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(to.FD), uintptr(unsafe.Pointer(&s.msgs[taken])),
			uintptr(n-taken), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch {
		case errno == 0:
			for i, m := range s.msgs[taken : taken+int(got)] {
				s.SentBytes += uint64(m.len)
				if s.trace.On() {
					it := &s.items[taken+i]
					traced(s.trace, trace.Sent, to, s.frames.Bytes(it.frame), int(it.doff), int(it.end-it.doff))
				}
			}
			s.Sent += uint64(got)
			taken += int(got)
		case errno == unix.EAGAIN || errno == unix.ENOBUFS || errno == unix.EINTR:
			return taken, true
		case retried != taken:
			retried = taken // it may be an error of an earlier datagram
		default:
			s.Dropped++
			taken++
		}
	}
	return taken, false
}

// prepare writes the message of an item: to whom its header says, from where it says.
func (s *Sender) prepare(to *Socket, i int) {
	it := &s.items[i]
	b := s.frames.Bytes(it.frame)
	s.iov[i] = unix.Iovec{}
	if it.end > it.doff {
		s.iov[i].Base = &b[it.doff]
		s.iov[i].SetLen(int(it.end - it.doff))
	}
	h := &s.msgs[i].hdr
	*h = unix.Msghdr{Iov: &s.iov[i]}
	h.SetIovlen(1)
	f, ok := parse(b, int(it.doff))
	if !ok {
		return // to the peer that the socket is connected to
	}
	if f.ports[2] != 0 || f.ports[3] != 0 {
		h.Name = (*byte)(unsafe.Pointer(&s.names[i]))
		h.Namelen = f.destination(&s.names[i], to.v6)
	}
	if to.anyLocal {
		h.SetControllen(f.source(&s.ctl[i], to.v6))
		if h.Controllen > 0 {
			h.Control = &s.ctl[i][0]
		}
	}
}

// destination writes the socket address of the receiver.
func (f *fields) destination(name *unix.RawSockaddrInet6, v6 bool) (size uint32) {
	if !v6 && !f.v6 {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		*v4 = unix.RawSockaddrInet4{Family: unix.AF_INET}
		copy((*[2]byte)(unsafe.Pointer(&v4.Port))[:], f.ports[2:])
		copy(v4.Addr[:], f.dst)
		return unix.SizeofSockaddrInet4
	}
	*name = unix.RawSockaddrInet6{Family: unix.AF_INET6}
	copy((*[2]byte)(unsafe.Pointer(&name.Port))[:], f.ports[2:])
	widen(&name.Addr, f.dst)
	if linkLocal(name.Addr[:]) {
		name.Scope_id = binary.BigEndian.Uint32(f.ifindex)
	}
	return unix.SizeofSockaddrInet6
}

// source writes the control message that chooses the sender's address, if the header
// has one that can be chosen. It returns its size.
func (f *fields) source(ctl *control, v6 bool) int {
	const none = 0
	var addr [16]byte
	widen(&addr, f.src)
	if addr[0] == 0xff || unspecified(f.src) {
		return none // of a group, or not known
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&ctl[0]))
	*ctl = control{}
	data := ctl[unix.SizeofCmsghdr:]
	if v6 {
		h.Level, h.Type = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
		h.SetLen(unix.CmsgLen(unix.SizeofInet6Pktinfo))
		copy(data, addr[:])
		if linkLocal(addr[:]) {
			binary.NativeEndian.PutUint32(data[16:], binary.BigEndian.Uint32(f.ifindex))
		}
		return unix.CmsgSpace(unix.SizeofInet6Pktinfo)
	}
	h.Level, h.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
	h.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
	copy(data[4:], addr[12:])
	return unix.CmsgSpace(unix.SizeofInet4Pktinfo)
}

// widen makes an address one of IPv6.
func widen(to *[16]byte, addr []byte) {
	if len(addr) == 4 {
		*to = [16]byte{10: 0xff, 11: 0xff}
		copy(to[12:], addr)
		return
	}
	copy(to[:], addr)
}

func linkLocal(a []byte) bool { return a[0] == 0xfe && a[1]&0xc0 == 0x80 }

func unspecified(a []byte) bool {
	for _, b := range a {
		if b != 0 {
			return false
		}
	}
	return true
}

// Resume sends what waits when the socket has room again.
func (s *Sender) Resume(to *Socket) {
	for len(to.queue) > 0 {
		n := copy(s.items[:], to.queue)
		taken, full := s.send(to, n)
		for _, i := range to.queue[:taken] {
			s.frames.Unref(i.frame)
		}
		to.queue = to.queue[taken:]
		if full {
			return
		}
	}
	to.queue = nil
	delete(s.blocked, to)
}

// ResumeAll is for want of memory, after which no event comes.
func (s *Sender) ResumeAll() {
	for to := range s.blocked {
		s.Resume(to)
	}
}

// Blocked says whether something waits.
func (s *Sender) Blocked() bool { return len(s.blocked) > 0 }

// Drop forgets what waits for a socket.
func (s *Sender) Drop(to *Socket) {
	for _, i := range to.queue {
		s.frames.Unref(i.frame)
	}
	to.queue = nil
	delete(s.blocked, to)
}

// Visit shows the frames that wait.
func (s *Sender) Visit(v frames.Visit) {
	for to := range s.blocked {
		for _, i := range to.queue {
			v(frames.Waiting, i.frame)
		}
	}
}
