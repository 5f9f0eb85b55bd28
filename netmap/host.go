package netmap

import (
	"fmt"
	"unsafe"

	"github.com/pastenet/paste/internal/tap"
	"golang.org/x/sys/unix"
)

func headerIovec(h *tap.Header) unix.Iovec {
	v := unix.Iovec{Base: (*byte)(unsafe.Pointer(h))}
	v.SetLen(tap.HeaderSize)
	return v
}

// hostRx fills a ring with what the kernel sends by the NIC.
type hostRx struct {
	*host
	mem   *Memory
	free  []uint32
	parts int // buffers that the largest frame needs
	head  tap.Header
	iov   []unix.Iovec
	count RxStats
}

func newHostRx(h *host, m *Memory, owner uint32, slots, mtu int) (*hostRx, error) {
	q := &hostRx{host: h, mem: m, free: make([]uint32, slots), parts: (max(mtu, 1500) + 22 + m.MaxFrame() - 1) / m.MaxFrame()}
	if n := m.take(q.free, owner); n < slots {
		m.give(q.free[:n], owner)
		return nil, noBuffers(m, slots, n)
	}
	q.iov = make([]unix.Iovec, 1+q.parts)
	q.iov[0] = headerIovec(&q.head)
	return q, nil
}

func (q *hostRx) sync(r *ring, head uint32) error {
	for ; r.head != head; r.head = r.next(r.head) {
		q.free = append(q.free, r.bufs[r.head])
	}
	for r.room() >= q.parts && len(q.free) >= q.parts {
		bufs := q.free[len(q.free)-q.parts:]
		for i, b := range bufs {
			mem := q.mem.Buf(b)
			q.iov[1+i] = unix.Iovec{Base: &mem[0]}
			q.iov[1+i].SetLen(q.mem.MaxFrame())
		}
		n, _, e := unix.RawSyscall(unix.SYS_READV, uintptr(q.host.fd), uintptr(unsafe.Pointer(&q.iov[0])), uintptr(len(q.iov)))
		if e == unix.EAGAIN || e == unix.EINTR {
			return nil
		}
		if e != 0 {
			return fmt.Errorf("read the host's frames from %s: %w", q.name, e)
		}
		q.give(r, bufs, int(n)-tap.HeaderSize)
	}
	return nil
}

// give puts a frame into slots, and its buffers out of the free ones.
func (q *hostRx) give(r *ring, bufs []uint32, left int) {
	q.count.Frames++
	q.count.Bytes += uint64(left)
	used := 0
	for left > 0 {
		n := min(left, q.mem.MaxFrame())
		flags := uint16(NS_MOREFRAG)
		if left -= n; left == 0 {
			flags = 0
		}
		r.fill(bufs[used], n, flags)
		used++
	}
	rest := len(q.free) - q.parts
	q.free = q.free[:rest+copy(q.free[rest:], bufs[used:])]
}

func (q *hostRx) pending() bool { return false }
func (q *hostRx) fd() int       { return q.host.fd }

func (q *hostRx) end(r *ring) {
	r.settle()
	q.mem.giveAll(r.owner)
}

func (q *hostRx) stats() (RxStats, error) {
	s := q.count
	var err error
	s.DropRingFull, err = q.dropped()
	return s, err
}

// hostTx brings frames into the kernel as if the NIC had received them.
type hostTx struct {
	*host
	mem   *Memory
	next  uint32 // not written yet, up to the ring's head
	head  tap.Header
	iov   []unix.Iovec
	count TxStats
}

func (q *hostTx) sync(r *ring, head uint32) (err error) {
	r.head = head
	for i := q.next; i != head; {
		s, buf := r.slots[i], r.bufs[i]
		i = r.next(i)
		fault := ""
		switch {
		case s.Flags&(NS_INDIRECT|NS_FORWARD) != 0:
			fault = "NS_INDIRECT and NS_FORWARD are not here"
		case len(q.iov) > maxFrags:
			fault = tooMany
		default:
			q.add(buf, int(s.Len))
		}
		if fault != "" {
			err = fmt.Errorf("%s ring: %w: %s", r.name, ErrFrame, fault)
			q.count.Refused++
		} else if s.Flags&NS_MOREFRAG != 0 {
			continue
		} else if len(q.iov) > 1 {
			q.write()
		}
		q.iov, q.next = q.iov[:1], i
	}
	// A frame whose rest is still to come keeps its slots.
	q.iov = q.iov[:min(len(q.iov), 1)]
	r.freeUpTo(q.next)
	return err
}

// add adds a buffer to the frame that is written next.
func (q *hostTx) add(buf uint32, length int) {
	if len(q.iov) == 0 {
		q.iov = append(q.iov, headerIovec(&q.head))
	}
	if length == 0 {
		return
	}
	mem := q.mem.Buf(buf)
	v := unix.Iovec{Base: &mem[0]}
	v.SetLen(min(length, len(mem)))
	q.iov = append(q.iov, v)
	q.count.Bytes += uint64(length)
}

// write hands the kernel one frame.
func (q *hostTx) write() {
	q.head = tap.Header{}
	first := unsafe.Slice(q.iov[1].Base, int(q.iov[1].Len))
	if start, offset, ok := partialChecksum(first); ok {
		q.head.Flags, q.head.CsumStart, q.head.CsumOffset = tap.NeedsCsum, uint16(start), uint16(offset)
	}
	_, _, e := unix.RawSyscall(unix.SYS_WRITEV, uintptr(q.host.fd), uintptr(unsafe.Pointer(&q.iov[0])), uintptr(len(q.iov)))
	if e != 0 {
		q.count.Dropped++
		return
	}
	q.count.Frames++
}

func (q *hostTx) unsent(*ring) bool { return false }

func (q *hostTx) end(r *ring) {
	r.settle()
	q.mem.giveAll(r.owner)
}

func (q *hostTx) stats() (TxStats, error) { return q.count, nil }
