package pasteapi

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"github.com/pastenet/paste/internal/uring"
	"golang.org/x/sys/unix"
)

// injector sends frames into the kernel's TCP by writing them to the TAP
// device, a batch in one system call. The kernel copies a frame when it is
// written, and TCP's receive path runs inside the write, on this CPU: after
// flush every frame is free to be used again and every verdict has been given,
// but for segments that TCP keeps because something before them is missing.
type injector struct {
	tap     *tap
	partial bool // frames may carry partial checksums (the NIC is a veth)
	io      *uring.Ring
	batch   []vnetFrame
	unnamed []uint32 // frames without a ticket: free after flush
}

// vnetFrame is a virtio header with the frame behind it, in a buffer.
type vnetFrame struct {
	at  unsafe.Pointer
	len uint32
}

// injectorSize is how many frames one system call injects at most.
const injectorSize = 512

func newInjector(t *tap, partial bool) (injector, error) {
	io, err := uring.New(injectorSize, uring.Options{})
	if err != nil {
		return injector{}, fmt.Errorf("create io_uring for injection: %w", err)
	}
	return injector{tap: t, partial: partial, io: io, batch: make([]vnetFrame, 0, injectorSize)}, nil
}

func (j *injector) close() error {
	if j.io == nil {
		return nil
	}
	err := j.io.Close()
	j.io = nil
	return err
}

// add queues a frame; the caller flushes when room says 0. The Ethernet header
// is written anew in front of the IP header, so a VLAN tag disappears, as it
// would have on the VLAN's own interface. f is the received frame, with at
// least the virtio header's size of the buffer before it.
func (j *injector) add(f []byte, s *segment, ticket uint32) {
	start := s.l3 - ethHeader
	eth := f[start:s.l3]
	copy(eth[0:6], j.tap.mac[:])
	eth[6], eth[7] = 0x02, 'p' // locally administered
	binary.NativeEndian.PutUint32(eth[8:12], ticket)
	if s.v6 {
		binary.BigEndian.PutUint16(eth[12:14], ethIPv6)
	} else {
		binary.BigEndian.PutUint16(eth[12:14], ethIPv4)
	}
	h := header(unsafe.Pointer(&eth[0]))
	*h = vnetHeader{}
	if j.partial && s.partialChecksum(f) {
		h.flags = vnetNeedsCsum
		h.csumStart, h.csumOffset = uint16(s.l4-start), tcpCsumOffset
	}
	j.batch = append(j.batch, vnetFrame{unsafe.Pointer(h), uint32(vnetHeaderSize + s.end - start)})
}

// room is how many frames may be added before the next flush.
func (j *injector) room() int { return injectorSize - len(j.batch) }

// flush injects what was added. failed counts frames that the kernel did not
// take, for want of memory; TCP sends those again.
func (j *injector) flush() (failed uint64, err error) {
	batch := j.batch
	j.batch = j.batch[:0]
	if len(batch) == 1 {
		// A plain write is quicker than a batch of one.
		_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(j.tap.fd), uintptr(batch[0].at), uintptr(batch[0].len))
		switch errno {
		case 0:
			return 0, nil
		case unix.EAGAIN, unix.ENOMEM, unix.ENOBUFS, unix.EINTR:
			return 1, nil
		}
		return 1, fmt.Errorf("inject: %w", os.NewSyscallError("write", errno))
	}
	for _, f := range batch {
		sqe := j.io.GetSQE()
		sqe.Write(j.tap.fd, f.at, f.len)
		sqe.SetFlags(uring.FlagCQESkip)
	}
	if _, err := j.io.Submit(); err != nil {
		return 0, fmt.Errorf("inject: %w", err)
	}
	for {
		cqe, ok := j.io.PeekCQE()
		if !ok {
			return failed, nil
		}
		if cqe.Res < 0 {
			failed++
		}
		j.io.Advance(1)
	}
}
