// Package send puts the payload of TX slots into sockets, a batch at a time, and
// keeps what a full socket does not take.
package send

import (
	"bytes"
	"errors"

	"github.com/pastenet/paste/pasteapi/internal/frames"
	"github.com/pastenet/paste/pasteapi/internal/trace"
	"golang.org/x/sys/unix"
)

// ErrOverflow says that a connection was given up because its peer does not
// read.
var ErrOverflow = errors.New("peer does not read: send queue is full")

// copiedLimit is the most bytes of a ring that wait for slow readers in copies,
// made while the pool has no frame to put into the slot.
const copiedLimit = 64 << 20

// Queue is the sending side of one connection: what its socket has not taken
// yet.
type Queue struct {
	fd     int
	items  []item
	bytes  int
	chain  chain // its slots in the current batch
	stuck  bool  // Stuck was said, and not Free
	failed bool  // it was given up
}

// item is a buffer whose bytes the kernel has not taken yet.
type item struct {
	frame    uint32
	off, len uint16
	copied   []byte // in place of a frame
}

// Init makes the queue that of a socket.
func (q *Queue) Init(fd int) { *q = Queue{fd: fd, chain: noChain} }

// Bytes is how many bytes wait.
func (q *Queue) Bytes() int { return q.bytes }

// Failed says whether the connection was given up in sending.
func (q *Queue) Failed() bool { return q.failed }

// Event is what became of a connection while something was sent.
type Event struct {
	FD    int
	Kind  EventKind
	Cause error // Failed: why
}

// EventKind is the kind of an Event.
type EventKind uint8

const (
	Stuck  EventKind = iota // so much waits that its peer should send nothing more
	Free                    // everything was taken after Stuck
	Failed                  // the connection was given up, and its queue is empty
)

// backlog is what waits for all connections of a ring. Its methods use nothing
// but frames and sockets.
type backlog struct {
	Counters
	frames  *frames.Frames
	trace   *trace.Tap
	limit   int // most bytes that wait for one connection
	copied  int // bytes that wait in copies
	held    int // frames that wait
	blocked map[*Queue]struct{}
	events  []Event
	iov     []unix.Iovec // of the message that resume sends
	msg     unix.Msghdr
}

// postpone takes the buffer of a slot, n bytes from off on, into the
// connection's queue. other is the buffer that the slot gets in its place.
func (b *backlog) postpone(q *Queue, frame uint32, off, n int) (other uint32) {
	if q.failed {
		b.Dropped++
		return frame
	}
	if q.bytes+n > b.limit {
		b.fail(q, ErrOverflow)
		return frame
	}
	i := item{frame: frame, off: uint16(off), len: uint16(n)}
	other, err := b.frames.Replace(frame)
	if err != nil {
		// An empty pool is no reason to give a slow reader up.
		if b.copied+n > copiedLimit {
			b.fail(q, ErrOverflow)
			return frame
		}
		other = frame
		i = item{len: uint16(n), copied: bytes.Clone(b.frames.Bytes(frame)[off:][:n])}
		b.copied += n
	}
	if i.copied == nil {
		b.held++
	}
	b.blocked[q] = struct{}{}
	q.items = append(q.items, i)
	q.bytes += n
	b.Postponed++
	if q.bytes > b.limit/4 && !q.stuck {
		q.stuck = true
		b.events = append(b.events, Event{FD: q.fd, Kind: Stuck})
	}
	return other
}

// resumeBatch is how many items one system call sends when a socket has room again.
const resumeBatch = 128

// resume continues a queue when its socket has room again.
func (b *backlog) resume(q *Queue) {
	for len(q.items) > 0 {
		n := b.sendMsg(q.fd, b.message(q.items[:min(len(q.items), resumeBatch)]))
		if busy(n) {
			return // an event follows, or Retry tries again
		}
		if n < 0 {
			b.fail(q, unix.Errno(-n))
			return
		}
		b.Bytes += uint64(n)
		q.bytes -= n
		b.consume(q, n)
	}
	q.items = nil
	delete(b.blocked, q)
	if q.stuck {
		q.stuck = false
		b.events = append(b.events, Event{FD: q.fd, Kind: Free})
	}
}

// message makes one message of items. It is valid until the next call.
func (b *backlog) message(items []item) *unix.Msghdr {
	b.iov = b.iov[:0]
	for k := range items {
		bytes := b.bytesOf(&items[k])
		iov := unix.Iovec{Base: &bytes[0]}
		iov.SetLen(len(bytes))
		b.iov = append(b.iov, iov)
	}
	b.msg = unix.Msghdr{Iov: &b.iov[0]}
	b.msg.SetIovlen(len(b.iov))
	return &b.msg
}

// consume takes n bytes that the kernel has taken out of a queue.
func (b *backlog) consume(q *Queue, n int) {
	for n > 0 {
		i := &q.items[0]
		taken := min(n, int(i.len))
		if b.trace.On() {
			b.trace.Sent(q.fd, b.bytesOf(i)[:taken])
		}
		n -= taken
		i.off += uint16(taken)
		if i.len -= uint16(taken); i.len == 0 {
			b.free(i)
			q.items = q.items[1:]
		}
	}
}

// fail gives a connection up.
func (b *backlog) fail(q *Queue, cause error) {
	b.FailedConns++
	q.failed = true
	b.drop(q)
	if cause == ErrOverflow {
		// Nobody reads at the other end; an orderly close would wait for it.
		_ = unix.SetsockoptLinger(q.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	b.events = append(b.events, Event{FD: q.fd, Kind: Failed, Cause: cause})
}

// drop empties a queue.
func (b *backlog) drop(q *Queue) {
	delete(b.blocked, q)
	for i := range q.items {
		b.free(&q.items[i])
	}
	q.items, q.bytes, q.stuck = nil, 0, false
}

// bytesOf are the bytes of an item that are still to be sent.
func (b *backlog) bytesOf(i *item) []byte {
	if i.copied != nil {
		return i.copied[i.off:]
	}
	return b.frames.Bytes(i.frame)[i.off:][:i.len]
}

func (b *backlog) free(i *item) {
	if i.copied != nil {
		b.copied -= len(i.copied)
		return
	}
	b.held--
	b.frames.Unref(i.frame)
}
