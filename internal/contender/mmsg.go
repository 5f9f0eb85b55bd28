package contender

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Servers of datagrams, under Raw Echo and Sink.
const (
	// Mmsg is one thread that receives and sends up to 64 datagrams in a system call.
	Mmsg Kind = "mmsg"
	// MmsgGRO is the same with UDP_GRO and UDP_SEGMENT: where the kernel has merged
	// datagrams of one sender, they are received, and sent back, as one.
	MmsgGRO Kind = "mmsg-gro"
	// GoUDP is package net, a datagram in a system call.
	GoUDP Kind = "go-udp"
)

// Datagrams lists them.
func Datagrams() []Kind { return []Kind{Mmsg, MmsgGRO, GoUDP} }

// What a sink of datagrams knows of them (package udpload, which is not imported here:
// it needs a raw port).
const (
	flagsAt    = 8
	wantAnswer = 1
	answerSize = 16
)

// SinkAnswer is what a sink answers to a datagram when it has received n of them; nil
// if it does not want an answer.
func SinkAnswer(answer *[answerSize]byte, datagram []byte, n uint64) []byte {
	if len(datagram) <= flagsAt || datagram[flagsAt]&wantAnswer == 0 {
		return nil
	}
	copy(answer[:], datagram[:flagsAt])
	binary.BigEndian.PutUint64(answer[flagsAt:], n)
	return answer[:]
}

// datagramBuffer is what a socket may hold, in bytes: bursts of all clients.
const datagramBuffer = 16 << 20

// ListenUDP makes a non-blocking UDP socket with room for what comes while its server
// does something else.
func ListenUDP(addr netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("listen on %s: %w", addr, os.NewSyscallError("socket", err))
	}
	err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()})
	for _, opt := range []int{unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, datagramBuffer))
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return fd, nil
}

const (
	mmsgBatch  = 64
	mmsgSize   = 2048
	mmsgGROMax = 64 << 10
)

// mmsghdr is struct mmsghdr (include/linux/socket.h).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// segmentControl is a control message with a datagram's length: UDP_GRO's has 4 bytes,
// UDP_SEGMENT's 2.
type segmentControl [24]byte

type mmsgServer struct {
	*Config
	fd, ep, wake int
	gro          bool
	in, out      [mmsgBatch]mmsghdr
	inVec        [mmsgBatch]unix.Iovec
	outVec       [mmsgBatch]unix.Iovec
	names        [mmsgBatch]unix.RawSockaddrInet4
	ctl          [mmsgBatch]segmentControl
	answers      [mmsgBatch][answerSize]byte
	reqs, calls  uint64
}

func runMmsg(ctx context.Context, cfg *Config) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fd, err := ListenUDP(cfg.Addr)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	wake, release, err := waker(ctx)
	if err != nil {
		return err
	}
	defer release()
	ep, err := newEpoll(fd, wake)
	if err != nil {
		return err
	}
	defer unix.Close(ep)
	s := &mmsgServer{Config: cfg, fd: fd, ep: ep, wake: wake, gro: cfg.Kind == MmsgGRO}
	if s.gro {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1); err != nil {
			return os.NewSyscallError("setsockopt UDP_GRO", err)
		}
	}
	s.lay()
	cfg.Ready(cfg.Addr)
	return s.loop()
}

// lay points the messages at their buffers, which stay.
func (s *mmsgServer) lay() {
	size := mmsgSize
	if s.gro {
		size = mmsgGROMax
	}
	mem := make([]byte, mmsgBatch*size)
	for i := range s.in {
		s.inVec[i].Base = &mem[i*size]
		s.inVec[i].SetLen(size)
		for h, v := range map[*unix.Msghdr]*unix.Iovec{&s.in[i].hdr: &s.inVec[i], &s.out[i].hdr: &s.outVec[i]} {
			*h = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&s.names[i])), Namelen: unix.SizeofSockaddrInet4, Iov: v}
			h.SetIovlen(1)
		}
		s.renew(i)
	}
}

// renew makes a message ready to be received into.
func (s *mmsgServer) renew(i int) {
	h := &s.in[i].hdr
	h.Namelen = unix.SizeofSockaddrInet4
	if s.gro {
		h.Control = &s.ctl[i][0]
		h.SetControllen(len(s.ctl[i]))
	}
}

func (s *mmsgServer) loop() error {
	for {
		s.calls++
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.in[0])), mmsgBatch, unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == unix.EAGAIN:
			if done, err := s.sleep(); done || err != nil {
				return err
			}
			continue
		case errno == unix.EINTR:
			continue
		case errno != 0:
			return os.NewSyscallError("recvmmsg", errno)
		}
		if err := s.send(s.answer(int(n))); err != nil {
			return err
		}
		for i := range int(n) {
			s.renew(i)
		}
	}
}

// sleep waits for datagrams, or for the end.
func (s *mmsgServer) sleep() (done bool, err error) {
	s.Stats.Syscalls.Store(s.calls)
	s.Stats.Requests.Store(s.reqs)
	var events [2]unix.EpollEvent
	s.calls++
	n, err := unix.EpollWait(s.ep, events[:], -1)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false, fmt.Errorf("wait for epoll: %w", err)
	}
	for i := range max(n, 0) {
		done = done || int(events[i].Fd) == s.wake
	}
	return done, nil
}

// answer makes the messages that answer those received, and returns how many.
func (s *mmsgServer) answer(n int) (m int) {
	for i := range n {
		b := unsafe.Slice(s.inVec[i].Base, s.in[i].len)
		each := len(b)
		if size := s.merged(i); size > 0 {
			each = size
		}
		count := uint64(1)
		if each > 0 {
			count = uint64((len(b) + each - 1) / each)
		}
		s.reqs += count
		if s.Raw == Echo {
			s.out[m].hdr.Control = nil
			s.out[m].hdr.SetControllen(0)
			if each < len(b) {
				s.segment(m, i, each)
			}
			s.queue(m, i, b)
			m++
			continue
		}
		// Of merged datagrams those that want an answer are the last ones at most.
		last := b
		if each > 0 {
			last = b[(len(b)-1)/each*each:]
		}
		if a := SinkAnswer(&s.answers[m], last, s.reqs); a != nil {
			s.queue(m, i, a)
			m++
		}
	}
	return m
}

func (s *mmsgServer) queue(m, i int, b []byte) {
	s.outVec[m].Base = unsafe.SliceData(b)
	s.outVec[m].SetLen(len(b))
	s.out[m].hdr.Name = (*byte)(unsafe.Pointer(&s.names[i]))
}

// merged is the length of the datagrams that message i consists of, 0 if it is one.
func (s *mmsgServer) merged(i int) int {
	if !s.gro || s.in[i].hdr.Controllen < unix.SizeofCmsghdr+4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(s.ctl[i][unix.SizeofCmsghdr:]))
}

// segment has message m, made of message i, sent as datagrams of a length.
func (s *mmsgServer) segment(m, i, size int) {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&s.ctl[i][0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(s.ctl[i][unix.SizeofCmsghdr:], uint16(size))
	s.out[m].hdr.Control = &s.ctl[i][0]
	s.out[m].hdr.SetControllen(unix.CmsgSpace(2))
}

// send sends the first n messages. What the kernel does not take is lost, as datagrams
// are.
func (s *mmsgServer) send(n int) error {
	for at := 0; at < n; {
		s.calls++
		sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.out[at])), uintptr(n-at), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			at += int(sent)
		case unix.EINTR:
		case unix.EAGAIN, unix.ENOBUFS, unix.ECONNREFUSED:
			at++
		default:
			return os.NewSyscallError("sendmmsg", errno)
		}
	}
	return nil
}
