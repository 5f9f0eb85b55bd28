package uring

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// SetUserData sets the value that comes back in [CQE.UserData].
func (e *SQE) SetUserData(v uint64) { e.userData = v }

// SetFlags adds Flag bits (FlagLink, FlagCQESkip …).
func (e *SQE) SetFlags(f uint8) { e.flags |= f }

// Nop completes with result 0.
func (e *SQE) Nop() { e.opcode = opNop }

// Send is send(2) of n bytes at p, which must stay put until completion. A
// result smaller than n is a partial send. With MSG_DONTWAIT in flags a full
// socket completes with -EAGAIN; without, the kernel waits for room.
func (e *SQE) Send(fd int, p unsafe.Pointer, n uint32, flags uint32) {
	e.opcode, e.fd, e.addr, e.len, e.opFlags = opSend, int32(fd), uint64(uintptr(p)), n, flags
}

// Write is write(2) of n bytes at p to a file without a position, such as a TAP
// device. p must stay put until completion.
func (e *SQE) Write(fd int, p unsafe.Pointer, n uint32) {
	e.opcode, e.fd, e.addr, e.len, e.off = opWrite, int32(fd), uint64(uintptr(p)), n, ^uint64(0)
}

// Writev is writev(2) to a file without a position. The n iovecs and their
// buffers must stay put until completion.
func (e *SQE) Writev(fd int, iov *unix.Iovec, n uint32) {
	e.opcode, e.fd, e.addr, e.len, e.off = opWritev, int32(fd), uint64(uintptr(unsafe.Pointer(iov))), n, ^uint64(0)
}

// SendMsg is sendmsg(2). hdr, its iovecs and their buffers must stay put until
// completion.
func (e *SQE) SendMsg(fd int, hdr *unix.Msghdr, flags uint32) {
	e.opcode, e.fd, e.addr, e.len, e.opFlags = opSendMsg, int32(fd), uint64(uintptr(unsafe.Pointer(hdr))), 1, flags
}

// RecvMultishot receives again and again, each completion carrying one buffer
// of the given group ([CQE.BufferID]). A completion without [CQEMore] ends it:
// result 0 is the end of the stream, -ENOBUFS an empty group.
func (e *SQE) RecvMultishot(fd int, group uint16, flags uint32) {
	e.opcode, e.fd, e.opFlags = opRecv, int32(fd), flags
	e.ioprio, e.flags, e.bufGroup = recvMultishot, e.flags|FlagBufferSelect, group
}

// Recv is recv(2) into n bytes at p, which must stay put until completion.
func (e *SQE) Recv(fd int, p unsafe.Pointer, n uint32, flags uint32) {
	e.opcode, e.fd, e.addr, e.len, e.opFlags = opRecv, int32(fd), uint64(uintptr(p)), n, flags
}

// Accept is accept4(2) without the peer's address; the result is the new
// descriptor. flags are SOCK_ flags.
func (e *SQE) Accept(fd int, flags uint32) {
	e.opcode, e.fd, e.opFlags = opAccept, int32(fd), flags
}

// AcceptMultishot accepts again and again, one completion per connection.
func (e *SQE) AcceptMultishot(fd int, flags uint32) {
	e.Accept(fd, flags)
	e.ioprio = acceptMultishot
}

// PollAdd waits once until one of events (POLLIN …) is there; the result is the
// mask of what is.
func (e *SQE) PollAdd(fd int, events uint32) {
	e.opcode, e.fd, e.opFlags = opPollAdd, int32(fd), events
}

// PollMultishot reports events again and again, edge-triggered.
func (e *SQE) PollMultishot(fd int, events uint32) {
	e.PollAdd(fd, events)
	e.len = pollAddMulti
}

// CloseFD is close(2).
func (e *SQE) CloseFD(fd int) { e.opcode, e.fd = opClose, int32(fd) }

// Cancel cancels one operation that carries userData. The result is 0,
// -ENOENT (no such operation) or -EALREADY (too far gone).
func (e *SQE) Cancel(userData uint64) {
	e.opcode, e.fd, e.addr = opAsyncCancel, -1, userData
}

// CancelFD cancels every operation on fd; the result is how many there were.
func (e *SQE) CancelFD(fd int) {
	e.opcode, e.fd, e.opFlags = opAsyncCancel, int32(fd), cancelAll|cancelFD
}
