package dgram

import (
	"slices"
	"unsafe"

	"github.com/pastenet/paste/pasteapi/internal/frames"
	"github.com/pastenet/paste/pasteapi/internal/trace"
	"golang.org/x/sys/unix"
)

// batch is how many datagrams one system call moves at most.
const batch = 64

// Flags of the slots of datagrams (NS_* of pasteapi).
const (
	FlagCopied    = 0x8000
	FlagDatagram  = 0x2000
	FlagError     = 0x1000
	FlagTruncated = 0x0800
)

// Slots is where datagrams go: the RX ring.
type Slots interface {
	Free() int
	// FillDatagram puts n bytes at doff in a frame into the next slot, whose frame that is
	// from then on. It returns the one that was there.
	FillDatagram(fd int, frame uint32, doff, n int, flags uint16) (old uint32)
	End(fd int)
}

// Counters count since the ring was opened.
type Counters struct {
	Syscalls  uint64
	Received  uint64 // datagrams
	Bytes     uint64 // of their payloads
	Truncated uint64 // of these: longer than a buffer
	Errors    uint64 // told by the network
	Sent      uint64 // datagrams that the kernel has taken
	SentBytes uint64
	Dropped   uint64 // datagrams that could not be sent
}

// control is room for the control messages of one datagram: in6_pktinfo (a header of 16
// bytes, 20 bytes, and what aligns them) and the length of merged ones (16 and 8).
type control [64]byte

// Receiver brings what UDP sockets have received into slots. It belongs to the ring's
// goroutine.
type Receiver struct {
	*Counters
	frames *frames.Frames
	trace  *trace.Tap
	ready  []*Socket // that may have something
	count  int       // of sockets

	// What the next call reads into. Frames are taken when they are first needed.
	to    []uint32
	msgs  [batch]mmsghdr
	iov   [batch]unix.Iovec
	names [batch]unix.RawSockaddrInet6 // or, shorter, of IPv4
	ctl   [batch]control
}

// NewReceiver returns a receiver without sockets.
func NewReceiver(f *frames.Frames, c *Counters) *Receiver {
	return &Receiver{frames: f, trace: trace.Off, Counters: c}
}

// Add puts a socket under the receiver. What waits in it is received first.
func (r *Receiver) Add(s *Socket) {
	r.count++
	s.errors = true
	r.Input(s)
}

// Remove takes a socket out.
func (r *Receiver) Remove(s *Socket) {
	r.count--
	s.muted = true
	_ = s.unmerge() // a descriptor that was closed
	if s.ready {
		s.ready = false
		r.ready = slices.DeleteFunc(r.ready, func(o *Socket) bool { return o == s })
	}
	if r.count == 0 {
		for _, f := range r.to {
			r.frames.Give(f)
		}
		r.to = r.to[:0]
	}
}

// Sockets is how many there are.
func (r *Receiver) Sockets() int { return r.count }

// Pending says whether Receive may find something.
func (r *Receiver) Pending() bool { return len(r.ready) > 0 }

// Input says that there may be something to receive.
func (r *Receiver) Input(s *Socket) {
	if !s.ready && !s.muted && !s.paused {
		s.ready = true
		r.ready = append(r.ready, s)
	}
}

// Failure says that the socket may have errors to tell.
func (r *Receiver) Failure(s *Socket) {
	s.errors = true
	r.Input(s)
}

// End ends a socket, when what has come before was received.
func (r *Receiver) End(s *Socket, cause error) {
	if !s.ended {
		s.ended, s.cause = true, cause
	}
	r.Input(s)
}

// Mute has nothing more of a socket received.
func (r *Receiver) Mute(s *Socket) { s.muted = true }

// Pause leaves what comes in the socket, or takes it again.
func (r *Receiver) Pause(s *Socket, yes bool) {
	s.paused = yes
	r.Input(s)
}

// Receive fills slots. A socket that had as much as was asked for is looked at again the
// next time, after the others.
func (r *Receiver) Receive(to Slots) {
	for range len(r.ready) {
		if to.Free() == 0 {
			return
		}
		s := r.ready[0]
		r.ready = append(r.ready[:0], r.ready[1:]...)
		s.ready = false
		if r.receive(s, to) {
			r.Input(s)
		}
	}
}

// receive says whether there may be more.
func (r *Receiver) receive(s *Socket, to Slots) (more bool) {
	if s.muted || s.paused {
		return false
	}
	if s.errors && !s.ended {
		s.errors = r.tellErrors(s, to)
	}
	n, errno := 0, unix.Errno(0)
	if s.merged != nil && !r.split(s, to) {
		return true
	}
	for range 4 { // an error of the network is told once, and the next call goes on
		if n, errno = r.read(s, min(batch, to.Free())); errno == 0 || errno == unix.EAGAIN || errno == unix.ENOBUFS || fatal(errno) {
			break
		}
		s.errors = true
	}
	if s.merged != nil {
		_ = r.split(s, to)
	} else {
		for i := range n {
			r.fill(s, to, r.datagram(s, i))
		}
		r.to = r.to[:copy(r.to, r.to[n:])]
		r.alike(s, n)
	}
	switch {
	case fatal(errno):
		return !s.end(to, errno)
	case s.ended && n == 0:
		return !s.end(to, s.cause)
	}
	return n > 0 || errno == unix.ENOBUFS || s.errors
}

// end gives out the close notice, if there is a slot for it.
func (s *Socket) end(to Slots, cause error) bool {
	if to.Free() == 0 {
		return false
	}
	s.ended, s.muted, s.cause = true, true, cause
	to.End(s.FD)
	return true
}

// read reads up to n datagrams.
func (r *Receiver) read(s *Socket, n int) (int, unix.Errno) {
	if s.merged != nil {
		return r.readMerged(s)
	}
	for len(r.to) < n {
		f, ok := r.frames.Take()
		if !ok {
			break
		}
		r.to = append(r.to, f)
	}
	if n = min(n, len(r.to)); n == 0 {
		r.frames.Empty++
		return 0, unix.ENOBUFS
	}
	doff, size := s.doff(), r.frames.Size()
	for i := range n {
		r.iov[i].Base = &r.frames.Bytes(r.to[i])[doff]
		r.iov[i].SetLen(size - doff)
		h := &r.msgs[i].hdr
		*h = unix.Msghdr{Iov: &r.iov[i], Name: (*byte)(unsafe.Pointer(&r.names[i])), Namelen: uint32(unsafe.Sizeof(r.names[i]))}
		h.SetIovlen(1)
		if s.anyLocal {
			h.Control = &r.ctl[i][0]
			h.SetControllen(len(r.ctl[i]))
		}
	}
	r.Syscalls++
	got, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.FD), uintptr(unsafe.Pointer(&r.msgs[0])), uintptr(n),
		unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(got), 0
}

// Visit shows the frames that are ready to be read into.
func (r *Receiver) Visit(v frames.Visit) {
	for _, f := range r.to {
		v(frames.Batch, f)
	}
}
