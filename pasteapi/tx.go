package pasteapi

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"github.com/pastenet/paste/internal/uring"
	"golang.org/x/sys/unix"
)

// txItem is a buffer whose bytes the kernel has not taken yet.
type txItem struct {
	frame    uint32
	off, len uint16
	copied   []byte // in place of a frame
}

// copiedLimit is the most bytes of a ring that wait for slow readers in copies,
// made while the pool has no frame to put into the slot.
const copiedLimit = 64 << 20

const sendFlags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL

// TxSync sends the slots from the last sync up to Head: all of them in one
// system call, one send per connection, in order for each. It never blocks.
//
// What a full socket does not take leaves the ring too: its buffer is
// exchanged for a free one (NS_BUF_CHANGED), or copied when the pool has none,
// and follows when the peer has read. Meanwhile the connection's received
// segments are held back. A connection with more than Options.TxLimit bytes
// waiting is given up and ends with ErrTxOverflow; so is one for which neither a
// free buffer is left nor room for another copy (64 MiB for a ring). Slots for a
// descriptor that is not registered are dropped and counted (Stats.TxDropped):
// their connection has just gone.
func (r *Ring) TxSync() error {
	if r.closed {
		return ErrClosed
	}
	v := &r.txView
	given, err := v.accept(r.pool)
	if err != nil {
		r.stats.RingErrors++
		return err
	}
	if given == 0 {
		if len(r.closing) > 0 {
			return r.closeSent()
		}
		return nil
	}
	err = r.checkTx(given)
	r.collect(given)
	sendErr := r.submit()
	v.head = v.ring.Head
	// One slot always stays empty.
	v.tail = v.head + v.slots - 1
	if v.tail >= v.slots {
		v.tail -= v.slots
	}
	v.ring.Tail = v.tail
	if len(r.closing) > 0 {
		sendErr = errors.Join(sendErr, r.closeSent())
	}
	return errors.Join(err, sendErr)
}

// checkTx looks for slots whose lengths leave their buffer and empties them.
func (r *Ring) checkTx(given uint32) error {
	v := &r.txView
	var err error
	for i := v.head; given > 0; i, given = v.next(i), given-1 {
		if s := v.ring.slot(i); int(s.Len) > 1<<r.shift || s.Doff() > int(s.Len) {
			err = &RingError{Ring: "tx", Field: fmt.Sprintf("slot %d len", i), Value: uint64(s.Len),
				Limit: fmt.Sprintf("from doff (%d) to %d", s.Doff(), 1<<r.shift)}
			s.Len = uint16(s.Doff())
			if s.Doff() > 1<<r.shift {
				s.SetDoff(0)
				s.Len = 0
			}
			r.stats.RingErrors++
		}
	}
	return err
}

// collect chains the slots of each connection, in order.
func (r *Ring) collect(given uint32) {
	v := &r.txView
	r.txConns = r.txConns[:0]
	for i := v.head; given > 0; i, given = v.next(i), given-1 {
		s := v.ring.slot(i)
		c := r.lookup(s.Fd())
		if c == nil || c.failed || s.Doff() == int(s.Len) {
			if c == nil || c.failed {
				r.stats.TxDropped++
			}
			continue
		}
		if len(c.queue) > 0 {
			r.postpone(c, i, s.Doff())
			continue
		}
		r.txNext[i] = -1
		if c.batch < 0 {
			c.batch = int32(i)
			r.txConns = append(r.txConns, c)
		} else {
			r.txNext[c.batchEnd] = int32(i)
		}
		c.batchEnd = int32(i)
	}
}

// submit sends every chain. With MSG_DONTWAIT each send completes while it is
// submitted, so all results are there afterwards.
func (r *Ring) submit() error {
	if len(r.txConns) == 1 && r.txConns[0].batch == r.txConns[0].batchEnd {
		// A plain send is quicker than a batch of one.
		c := r.txConns[0]
		s := r.txView.ring.slot(uint32(c.batch))
		r.sent(c, r.send(c.fd, r.frame(s.BufIdx)[s.Doff():s.Len]))
		return nil
	}
	for rest := r.txConns; len(rest) > 0; {
		r.iovecs, r.msgs = r.iovecs[:0], r.msgs[:0]
		n := 0
		for n < len(rest) && n < int(r.io.Entries()) {
			sqe := r.io.GetSQE()
			if sqe == nil {
				break
			}
			r.prepare(rest[n], sqe)
			sqe.SetUserData(uint64(n))
			n++
		}
		if _, err := r.io.Submit(); err != nil {
			return fmt.Errorf("send batch: %w", err)
		}
		r.stats.Syscalls++
		r.stats.TxBatches++
		batch := rest[:n]
		for reaped := 0; reaped < n; {
			cqe, ok := r.io.PeekCQE()
			if !ok {
				// Never seen; the kernel may still finish it asynchronously.
				r.stats.Syscalls++
				if _, err := r.io.SubmitAndWait(1, -1); err != nil {
					return fmt.Errorf("wait for batch: %w", err)
				}
				continue
			}
			c, res := batch[cqe.UserData], cqe.Res
			r.io.Advance(1)
			reaped++
			r.sent(c, int(res))
		}
		rest = rest[n:]
	}
	return nil
}

// prepare writes the send of a connection's chain.
func (r *Ring) prepare(c *conn, sqe *uring.SQE) {
	v := &r.txView
	if c.batch == c.batchEnd {
		s := v.ring.slot(uint32(c.batch))
		doff := s.Doff()
		sqe.Send(c.fd, unsafe.Pointer(&r.frame(s.BufIdx)[doff]), uint32(int(s.Len)-doff), sendFlags)
		return
	}
	first := len(r.iovecs)
	for i := c.batch; i >= 0; i = r.txNext[i] {
		s := v.ring.slot(uint32(i))
		doff := s.Doff()
		iov := unix.Iovec{Base: &r.frame(s.BufIdx)[doff]}
		iov.SetLen(int(s.Len) - doff)
		r.iovecs = append(r.iovecs, iov) // never grows beyond the ring's slots
		if len(r.iovecs)-first == 1024 { // UIO_MAXIOV; the rest counts as not taken
			break
		}
	}
	r.msgs = append(r.msgs, unix.Msghdr{Iov: &r.iovecs[first]})
	m := &r.msgs[len(r.msgs)-1]
	m.SetIovlen(len(r.iovecs) - first)
	sqe.SendMsg(c.fd, m, sendFlags)
}

// sent accounts for the result of a connection's chain: bytes taken, or a
// negative errno.
func (r *Ring) sent(c *conn, res int) {
	chain := c.batch
	c.batch = -1
	r.stats.TxSends++
	if res < 0 && !busy(res) {
		r.sendFailed(c, unix.Errno(-res))
		return
	}
	taken := max(res, 0)
	r.stats.TxBytes += uint64(taken)
	for i := chain; i >= 0; i = r.txNext[i] {
		s := r.txView.ring.slot(uint32(i))
		n := int(s.Len) - s.Doff()
		r.stats.TxSlots++
		if taken >= n {
			taken -= n
			continue
		}
		r.postpone(c, uint32(i), s.Doff()+taken)
		taken = 0
	}
}

// postpone takes the buffer of a slot, from off on, into the connection's
// queue and gives the slot another one.
func (r *Ring) postpone(c *conn, i uint32, off int) {
	if c.failed {
		r.stats.TxDropped++
		return
	}
	s := r.txView.ring.slot(i)
	n := int(s.Len) - off
	item := txItem{frame: s.BufIdx, off: uint16(off), len: uint16(n)}
	var spare [1]uint32
	switch {
	case c.queued+n > r.txLimit:
		r.sendFailed(c, ErrTxOverflow)
		return
	case r.pool.Alloc(spare[:]) == 1:
		r.owned.remove(s.BufIdx)
		r.owned.add(spare[0])
		s.BufIdx = spare[0]
		s.Flags |= NS_BUF_CHANGED
		r.txView.bufs[i] = spare[0]
	case r.txCopied+n <= copiedLimit:
		// An empty pool is no reason to give a slow reader up.
		item = txItem{len: uint16(n), copied: bytes.Clone(r.frame(s.BufIdx)[off:s.Len])}
		r.txCopied += n
	default:
		r.sendFailed(c, ErrTxOverflow)
		return
	}
	if len(c.queue) == 0 {
		r.blocked++
	}
	c.queue = append(c.queue, item)
	c.queued += n
	r.stats.TxPostponed++
	if c.queued > r.txLimit/4 {
		r.stop(c)
	}
}

// bytesOf are the bytes of an item that are still to be sent.
func (r *Ring) bytesOf(q *txItem) []byte {
	if q.copied != nil {
		return q.copied[q.off:]
	}
	return r.frame(q.frame)[q.off:][:q.len]
}

// freeItem ends an item. Its buffer may be part of something that is stored: it
// goes back to the pool, never to the NIC.
func (r *Ring) freeItem(q *txItem) {
	if q.copied != nil {
		r.txCopied -= len(q.copied)
		return
	}
	r.pool.Unref(q.frame)
}

// sendQueued continues a connection's queue when its socket has room again.
func (r *Ring) sendQueued(c *conn) {
	for len(c.queue) > 0 {
		q := &c.queue[0]
		n := r.send(c.fd, r.bytesOf(q))
		if busy(n) {
			return // an event follows, or the sweep tries again
		}
		if n < 0 {
			r.sendFailed(c, unix.Errno(-n))
			return
		}
		r.stats.TxBytes += uint64(n)
		c.queued -= n
		q.off += uint16(n)
		if q.len -= uint16(n); q.len == 0 {
			r.freeItem(q)
			c.queue = c.queue[1:]
		}
	}
	c.queue = nil
	r.blocked--
	r.resume(c)
}

// send writes to a socket without blocking: bytes taken, or a negative errno as
// io_uring has it.
func (r *Ring) send(fd int, b []byte) int {
	r.stats.Syscalls++
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])),
		uintptr(len(b)), sendFlags, 0, 0)
	if errno != 0 {
		return -int(errno)
	}
	return int(n)
}

// busy says whether a send's result means that the socket is full.
func busy(res int) bool {
	return res == -int(unix.EAGAIN) || res == -int(unix.EINTR) || res == -int(unix.ENOBUFS)
}

// sendFailed gives a connection up; the application finds out by the close
// notice.
func (r *Ring) sendFailed(c *conn, cause error) {
	r.stats.TxFailed++
	c.failed = true
	r.freeQueue(c)
	r.freeHeld(c)
	if cause == ErrTxOverflow {
		// Nobody reads at the other end; an orderly close would wait for it.
		_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	if c.eof && c.cause == nil {
		c.cause = cause
	}
	r.end(c, cause)
}

// freeQueue drops what waits to be sent; nothing is held back for it any more.
func (r *Ring) freeQueue(c *conn) {
	r.letPass(c)
	if len(c.queue) > 0 {
		r.blocked--
	}
	for i := range c.queue {
		r.freeItem(&c.queue[i])
	}
	c.queue, c.queued = nil, 0
}
