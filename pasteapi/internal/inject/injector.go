// Package inject sends received frames into the kernel's TCP.
package inject

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/internal/uring"
	"github.com/pastenet/paste/pasteapi/internal/wire"
	"golang.org/x/sys/unix"
)

// Size is how many packets one system call injects at most.
const Size = 512

// tapFile is the TAP's index among the files of the injector's io_uring.
const tapFile = 0

// Injector writes frames to a Tap, a batch in one system call. The kernel copies
// a frame when it is written, so after Inject every frame is free to be used again.
// TCP's receive path runs inside the write, on this CPU, and has given its verdicts
// by then, as a rule: segments wait where something before them is missing, and where
// the kernel hands what comes in on the NIC to another CPU or to a thread.
//
// It belongs to one goroutine, which must not let a frame be used again before
// Inject.
type Injector struct {
	tap     *Tap
	mac     *[6]byte // the device's; nil: packets come in on the NIC
	order   *bpf.Order
	partial bool        // frames may carry partial checksums (the NIC is a veth)
	io      *uring.Ring // nil where there is none: every packet is a write
	batch   []packet
	iovecs  []unix.Iovec // of the merged packets, in the order of the batch
	serial  uint64       // of the batch
	broken  error        // the io_uring has entries that it must not be given again
}

// Key says which packet of which batch holds a connection's last segment.
type Key struct {
	serial uint64
	index  int32
}

// New returns an injector over a device, which stays the caller's. onNIC says that
// what is written to it comes in on the NIC anew, partial that frames may carry
// partial checksums, as they do on a veth.
func New(t *Tap, order *bpf.Order, onNIC, partial bool) (*Injector, error) {
	mac := &t.mac
	if onNIC {
		mac = nil
	}
	j := &Injector{tap: t, mac: mac, order: order, partial: partial, batch: make([]packet, 0, Size), serial: 1}
	io, err := uring.New(Size, uring.Options{})
	if errors.Is(err, uring.ErrNotAvailable) {
		return j, nil
	}
	if err != nil {
		return nil, fmt.Errorf("create io_uring for injection: %w", err)
	}
	if err := io.RegisterFiles(int32(t.fd)); err != nil {
		return nil, errors.Join(fmt.Errorf("create io_uring for injection: %w", err), io.Close())
	}
	j.io = io
	return j, nil
}

// OnNIC says whether packets come in on the NIC, not on the device.
func (j *Injector) OnNIC() bool { return j.mac == nil }

// Len is the number of packets that wait for Inject.
func (j *Injector) Len() int { return len(j.batch) }

// Room is how many frames may be added before the next Inject.
func (j *Injector) Room() int { return Size - len(j.batch) }

// Add queues a frame; there must be Room. The buffer has at least VnetHeaderSize
// bytes before the frame. The key is for Merge.
func (j *Injector) Add(f []byte, s *wire.Segment, ticket uint32) Key {
	n := len(j.batch)
	j.batch = j.batch[:n+1]
	j.batch[n].begin(f, s, j.mac, ticket, j.partial)
	return Key{j.serial, int32(n)}
}

// Merge adds a segment to the packet that k names, if that is of this batch and
// the two may be one.
func (j *Injector) Merge(k Key, f []byte, s *wire.Segment) bool {
	return k.serial == j.serial && j.batch[k.index].merge(f, s)
}

// Inject injects what was added. failed counts packets that the kernel did not
// take; TCP sends those again. After an error nothing can be injected any more.
func (j *Injector) Inject() (failed uint64, err error) {
	batch := j.batch
	j.batch = j.batch[:0]
	j.serial++
	switch {
	case j.broken != nil:
		return uint64(len(batch)), j.broken
	case j.io == nil:
		failed, err = j.writeAll(batch)
	case len(batch) == 1 && len(batch[0].more) == 0:
		failed, err = j.write(&batch[0])
	default:
		failed, err = j.submit(batch)
	}
	for i := range batch {
		j.order.Injected(batch[i].flow, batch[i].nextSeq)
	}
	return failed, err
}

// write injects a lone packet: a plain write is quicker than a batch of one.
func (j *Injector) write(p *packet) (failed uint64, err error) {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(j.tap.fd), uintptr(p.header), uintptr(p.len))
	if errno == 0 {
		return 0, nil
	}
	return 1, fatal(errno)
}

// fatal is the error of a write after which no other one will succeed, or nil:
// what the kernel does not take for want of memory, or because the device is
// down for a moment, is a lost packet.
func fatal(errno unix.Errno) error {
	if errno == unix.EBADF || errno == unix.EBADFD {
		return fmt.Errorf("inject: %w", os.NewSyscallError("write", errno))
	}
	return nil
}

// writeAll injects packets one after the other.
func (j *Injector) writeAll(batch []packet) (failed uint64, err error) {
	for i := range batch {
		n, e := uint64(0), error(nil)
		if p := &batch[i]; len(p.more) > 0 {
			n, e = j.writev(p)
		} else {
			n, e = j.write(p)
		}
		failed += n
		err = errors.Join(err, e)
	}
	return failed, err
}

// writev injects a lone packet that was merged.
func (j *Injector) writev(p *packet) (failed uint64, err error) {
	j.iovecs = j.iovecs[:0]
	j.gather(p)
	_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(j.tap.fd), uintptr(unsafe.Pointer(&j.iovecs[0])), uintptr(len(j.iovecs)))
	if errno == 0 {
		return 0, nil
	}
	return 1, fatal(errno)
}

// gather adds the parts of a merged packet to the iovecs.
func (j *Injector) gather(p *packet) {
	p.finish()
	iov := unix.Iovec{Base: (*byte)(p.header)}
	iov.SetLen(int(p.len))
	j.iovecs = append(append(j.iovecs, iov), p.more...)
}

func (j *Injector) submit(batch []packet) (failed uint64, err error) {
	j.iovecs = j.iovecs[:0]
	for i := range batch {
		if p := &batch[i]; len(p.more) > 0 {
			j.gather(p)
		}
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
	// A short submission leaves the rest in the queue, with addresses of frames
	// that would be used for something else by the time of the next one.
	for tries := 0; j.io.Pending() > 0; tries++ {
		n, err := j.io.Submit()
		if n == 0 && tries > 0 || err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EBUSY) {
			j.broken = fmt.Errorf("inject: %w", errors.Join(err, errShort))
			return uint64(len(batch)), j.broken
		}
		if n > 0 {
			tries = 0
		}
		refused, err := j.reap()
		failed += refused
		if err != nil {
			return failed, err
		}
	}
	return failed, nil
}

var errShort = errors.New("the kernel does not take the whole batch")

// reap counts the writes that have failed; the others say nothing.
func (j *Injector) reap() (failed uint64, err error) {
	for {
		cqe, ok := j.io.PeekCQE()
		if !ok {
			return failed, err
		}
		if cqe.Res < 0 {
			failed++
			err = errors.Join(err, fatal(unix.Errno(-cqe.Res)))
		}
		j.io.Advance(1)
	}
}

// Close ends the injector. The device stays open. It may be called twice.
func (j *Injector) Close() error {
	if j.io == nil {
		return nil
	}
	err := j.io.Close()
	j.io = nil
	return err
}
