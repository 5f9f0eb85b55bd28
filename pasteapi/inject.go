package pasteapi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/pastenet/paste/bpf"
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
	order   *bpf.Order
	partial bool // frames may carry partial checksums (the NIC is a veth)
	io      *uring.Ring
	batch   []packet
	iovecs  []unix.Iovec // of the merged packets, in the order of the batch
	serial  uint32       // of the batch
	unnamed []uint32     // frames without a ticket: free after flush
}

// packet is one write: a frame with a virtio header before it, and the payloads
// of the segments merged with it.
type packet struct {
	header unsafe.Pointer // the virtio header, in the frame's buffer
	len    uint32         // of the header and the frame
	more   []unix.Iovec   // further payloads

	// What decides whether a segment may be merged.
	frame   []byte // the first frame
	seg     segment
	flow    bpf.Flow
	nextSeq uint32
	size    int // payload of every segment but the last
	total   int // payload so far
	open    bool
}

// mergeKey says which packet of which batch holds a connection's last segment.
type mergeKey struct {
	serial uint32
	index  int32
	slot   uint16 // its ticket
}

// injectorSize is how many frames one system call injects at most.
const injectorSize = 512

// tapFile is the TAP's index among the files of the injector's io_uring.
const tapFile = 0

// mergeLimit is the most payload bytes of a merged packet, which as a whole must
// stay below 64 KiB.
const mergeLimit = 60 << 10

func newInjector(t *tap, order *bpf.Order, partial bool) (injector, error) {
	io, err := uring.New(injectorSize, uring.Options{})
	if err != nil {
		return injector{}, fmt.Errorf("create io_uring for injection: %w", err)
	}
	if err := io.RegisterFiles(int32(t.fd)); err != nil {
		return injector{}, errors.Join(fmt.Errorf("create io_uring for injection: %w", err), io.Close())
	}
	return injector{tap: t, order: order, partial: partial, io: io, batch: make([]packet, 0, injectorSize), serial: 1}, nil
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
	partial := j.partial && s.partialChecksum(f)
	if partial {
		h.flags = vnetNeedsCsum
		h.csumStart, h.csumOffset = uint16(s.l4-start), tcpCsumOffset
	}
	n := len(j.batch)
	j.batch = j.batch[:n+1]
	p := &j.batch[n]
	p.header, p.len, p.more = unsafe.Pointer(h), uint32(vnetHeaderSize+s.end-start), p.more[:0]
	p.frame, p.seg, p.flow = f, *s, s.flow(f)
	p.size = s.end - s.payload
	p.total = p.size
	p.nextSeq = s.seq + uint32(p.size)
	// Merging drops the checksums of the single segments. Only those that never
	// left this machine have none.
	p.open = partial && ticket != 0 && f[s.l4+13]&^(tcpPSH|tcpACK) == 0
}

// merge adds a segment to the packet with the one before it, as receive
// offload would have done had the frames not been taken from the NIC one by
// one: the kernel then does its work once for all of them. The rules are those
// of its own (tcp_gro_receive in net/ipv4/tcp_offload.c): same acknowledgement,
// flags and options, and segments of one size.
func (j *injector) merge(k mergeKey, f []byte, s *segment) bool {
	if k.serial != j.serial {
		return false
	}
	p := &j.batch[k.index]
	n := s.end - s.payload
	if !p.open || s.seq != p.nextSeq || n > p.size || p.total+n > mergeLimit ||
		f[s.l4+13]&^(tcpPSH|tcpACK) != 0 || s.payload-s.l4 != p.seg.payload-p.seg.l4 ||
		f[s.l3+1] != p.frame[p.seg.l3+1] ||
		!bytes.Equal(f[s.l4+8:s.l4+12], p.frame[p.seg.l4+8:p.seg.l4+12]) ||
		!bytes.Equal(f[s.l4+14:s.l4+16], p.frame[p.seg.l4+14:p.seg.l4+16]) ||
		!bytes.Equal(f[s.l4+tcpHeader:s.payload], p.frame[p.seg.l4+tcpHeader:p.seg.payload]) ||
		!s.partialChecksum(f) {
		return false
	}
	iov := unix.Iovec{Base: &f[s.payload]}
	iov.SetLen(n)
	p.more = append(p.more, iov)
	p.frame[p.seg.l4+13] |= f[s.l4+13] & tcpPSH
	p.total += n
	p.nextSeq += uint32(n)
	p.open = n == p.size
	return true
}

// finish writes the headers of a merged packet.
func (p *packet) finish() {
	f, s := p.frame, &p.seg
	tcpLen := s.payload - s.l4 + p.total
	h := (*vnetHeader)(p.header)
	h.gsoSize = uint16(p.size)
	h.hdrLen = uint16(s.payload - s.l3 + ethHeader)
	var pseudo uint64
	if s.v6 {
		h.gsoType = vnetGSOTCPv6
		binary.BigEndian.PutUint16(f[s.l3+4:], uint16(tcpLen))
		pseudo = sum16(f[s.l3+8 : s.l3+40])
	} else {
		h.gsoType = vnetGSOTCPv4
		binary.BigEndian.PutUint16(f[s.l3+2:], uint16(s.l4-s.l3+tcpLen))
		binary.BigEndian.PutUint16(f[s.l3+10:], 0)
		binary.BigEndian.PutUint16(f[s.l3+10:], ^fold(sum16(f[s.l3:s.l4])))
		pseudo = sum16(f[s.l3+12 : s.l3+20])
	}
	binary.BigEndian.PutUint16(f[s.l4+tcpCsumOffset:], fold(pseudo+protoTCP+uint64(tcpLen)))
}

// room is how many frames may be added before the next flush.
func (j *injector) room() int { return injectorSize - len(j.batch) }

// flush injects what was added. failed counts packets that the kernel did not
// take, for want of memory; TCP sends those again.
func (j *injector) flush() (failed uint64, err error) {
	batch := j.batch
	j.batch = j.batch[:0]
	j.serial++
	j.iovecs = j.iovecs[:0]
	for i := range batch {
		if p := &batch[i]; len(p.more) > 0 {
			p.finish()
			iov := unix.Iovec{Base: (*byte)(p.header)}
			iov.SetLen(int(p.len))
			j.iovecs = append(append(j.iovecs, iov), p.more...)
		}
	}
	if len(batch) == 1 && len(batch[0].more) == 0 {
		// A plain write is quicker than a batch of one.
		_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(j.tap.fd), uintptr(batch[0].header), uintptr(batch[0].len))
		j.order.Injected(batch[0].flow, batch[0].nextSeq)
		switch errno {
		case 0:
			return 0, nil
		case unix.EAGAIN, unix.ENOMEM, unix.ENOBUFS, unix.EINTR:
			return 1, nil
		}
		return 1, fmt.Errorf("inject: %w", os.NewSyscallError("write", errno))
	}
	at := 0
	for i := range batch {
		p := &batch[i]
		sqe := j.io.GetSQE()
		if n := len(p.more); n > 0 {
			sqe.Writev(tapFile, &j.iovecs[at], uint32(n+1))
			at += n + 1
		} else {
			sqe.Write(tapFile, p.header, p.len)
		}
		sqe.SetFlags(uring.FlagCQESkip | uring.FlagFixedFile)
	}
	if _, err := j.io.Submit(); err != nil {
		return 0, fmt.Errorf("inject: %w", err)
	}
	for i := range batch {
		j.order.Injected(batch[i].flow, batch[i].nextSeq)
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
