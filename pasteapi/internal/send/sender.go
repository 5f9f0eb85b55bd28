package send

import (
	"fmt"
	"unsafe"

	"github.com/pastenet/paste/internal/uring"
	"github.com/pastenet/paste/pasteapi/internal/frames"
	"github.com/pastenet/paste/pasteapi/internal/trace"
	"golang.org/x/sys/unix"
)

// Slot is the payload of a TX slot: bytes from off to end of a frame.
type Slot struct {
	Frame    uint32
	Off, End int
}

// Slots is the TX ring.
type Slots interface {
	// Slot returns a slot's payload.
	Slot(i uint32) Slot
	// Exchange puts another buffer into a slot; the old one is the caller's.
	Exchange(i, frame uint32)
}

// chain are the slots of one connection in a batch, by index; next tells the one
// after each.
type chain struct{ first, last int32 }

var noChain = chain{-1, -1}

// Sender sends the slots of one TX ring. It belongs to the ring's goroutine.
type Sender struct {
	backlog
	slots  Slots
	io     *uring.Ring // nil: every send is a system call
	ready  []*Queue    // that have a chain
	next   []int32     // by slot: the next one of the same connection
	iovecs []unix.Iovec
	msgs   []unix.Msghdr
}

// New returns a sender for a ring of n slots. limit is the most bytes that may
// wait for one connection.
func New(f *frames.Frames, s Slots, n, limit int, m Means) (*Sender, error) {
	out := &Sender{
		backlog: backlog{frames: f, trace: trace.Off, limit: limit, blocked: map[*Queue]struct{}{}},
		slots:   s, next: make([]int32, n),
		iovecs: make([]unix.Iovec, 0, n), msgs: make([]unix.Msghdr, 0, n),
	}
	if !m.URing {
		return out, nil
	}
	var err error
	if out.io, err = uring.New(uint32(min(n, 1024)), uring.Options{}); err != nil {
		return nil, fmt.Errorf("create io_uring: %w", err)
	}
	return out, nil
}

// Trace has what is sent told to a tap. Nobody is told by default.
func (s *Sender) Trace(t *trace.Tap) { s.trace = t }

// Add puts a slot that is not empty into the batch.
func (s *Sender) Add(q *Queue, i uint32) {
	if q.failed {
		s.Dropped++
		return
	}
	if len(q.items) > 0 {
		s.keep(q, i, 0)
		return
	}
	s.next[i] = -1
	if q.chain.first < 0 {
		q.chain.first = int32(i)
		s.ready = append(s.ready, q)
	} else {
		s.next[q.chain.last] = int32(i)
	}
	q.chain.last = int32(i)
}

// keep postpones a slot, but for the first taken bytes.
func (s *Sender) keep(q *Queue, i uint32, taken int) {
	v := s.slots.Slot(i)
	if other := s.postpone(q, v.Frame, v.Off+taken, v.End-v.Off-taken); other != v.Frame {
		s.slots.Exchange(i, other)
	}
}

// Send sends the batch, one send for each connection. It never blocks. What a full
// socket does not take is taken out of its slots.
func (s *Sender) Send() error {
	rest := s.ready
	s.ready = s.ready[:0]
	if s.io == nil || len(rest) == 1 {
		// Of one send a system call of its own is quicker than a batch.
		for _, q := range rest {
			s.sent(q, s.plain(q))
		}
		return nil
	}
	for len(rest) > 0 {
		n, err := s.submit(rest)
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// plain sends a connection's chain in a system call of its own.
func (s *Sender) plain(q *Queue) int {
	if q.chain.first == q.chain.last {
		v := s.slots.Slot(uint32(q.chain.first))
		return s.send(q.fd, s.frames.Bytes(v.Frame)[v.Off:v.End])
	}
	s.iovecs, s.msgs = s.iovecs[:0], s.msgs[:0]
	return s.sendMsg(q.fd, s.gather(q))
}

// submit sends the chains of as many connections as one system call may. With
// MSG_DONTWAIT each send completes while it is submitted, so all results are
// there afterwards.
func (s *Sender) submit(queues []*Queue) (n int, err error) {
	s.iovecs, s.msgs = s.iovecs[:0], s.msgs[:0]
	for n < len(queues) && n < int(s.io.Entries()) {
		sqe := s.io.GetSQE()
		if sqe == nil {
			break
		}
		s.prepare(queues[n], sqe)
		sqe.SetUserData(uint64(n))
		n++
	}
	if _, err := s.io.Submit(); err != nil {
		return 0, fmt.Errorf("send batch: %w", err)
	}
	s.Syscalls++
	s.Batches++
	for reaped := 0; reaped < n; {
		cqe, ok := s.io.PeekCQE()
		if !ok {
			// A short submission, or one that the kernel finishes later.
			s.Syscalls++
			if _, err := s.io.SubmitAndWait(1, -1); err != nil {
				return 0, fmt.Errorf("wait for batch: %w", err)
			}
			continue
		}
		q, res := queues[cqe.UserData], cqe.Res
		s.io.Advance(1)
		reaped++
		s.sent(q, int(res))
	}
	return n, nil
}

// prepare writes the send of a connection's chain.
func (s *Sender) prepare(q *Queue, sqe *uring.SQE) {
	if q.chain.first == q.chain.last {
		v := s.slots.Slot(uint32(q.chain.first))
		sqe.Send(q.fd, unsafe.Pointer(&s.frames.Bytes(v.Frame)[v.Off]), uint32(v.End-v.Off), sendFlags)
		return
	}
	sqe.SendMsg(q.fd, s.gather(q), sendFlags)
}

// gather makes a message of a chain.
func (s *Sender) gather(q *Queue) *unix.Msghdr {
	first := len(s.iovecs)
	for i := q.chain.first; i >= 0; i = s.next[i] {
		v := s.slots.Slot(uint32(i))
		iov := unix.Iovec{Base: &s.frames.Bytes(v.Frame)[v.Off]}
		iov.SetLen(v.End - v.Off)
		s.iovecs = append(s.iovecs, iov) // never grows beyond the ring's slots
		if len(s.iovecs)-first == 1024 { // UIO_MAXIOV; the rest counts as not taken
			break
		}
	}
	s.msgs = append(s.msgs, unix.Msghdr{Iov: &s.iovecs[first]})
	m := &s.msgs[len(s.msgs)-1]
	m.SetIovlen(len(s.iovecs) - first)
	return m
}

// sent accounts for the result of a connection's chain: bytes taken, or a
// negative errno.
func (s *Sender) sent(q *Queue, res int) {
	i := q.chain.first
	q.chain = noChain
	s.Sends++
	if res < 0 && !busy(res) {
		s.fail(q, unix.Errno(-res))
		return
	}
	taken := max(res, 0)
	s.Bytes += uint64(taken)
	for ; i >= 0; i = s.next[i] {
		v := s.slots.Slot(uint32(i))
		s.Slots++
		if s.trace.On() {
			s.trace.Sent(q.fd, s.frames.Bytes(v.Frame)[v.Off:min(v.End, v.Off+taken)])
		}
		if n := v.End - v.Off; taken >= n {
			taken -= n
			continue
		}
		s.keep(q, uint32(i), taken)
		taken = 0
	}
}

// Resume continues a connection's queue when its socket has room again.
func (s *Sender) Resume(q *Queue) {
	if len(q.items) > 0 {
		s.resume(q)
	}
}

// Blocked says whether something waits for a peer that is slow.
func (s *Sender) Blocked() bool { return len(s.blocked) > 0 }

// Held is how many frames wait for peers that are slow.
func (s *Sender) Held() int { return s.held }

// GiveUp gives the connection up for which most waits, if any: the frames are
// wanted for others. An Event says so.
func (s *Sender) GiveUp() bool {
	var most *Queue
	for q := range s.blocked {
		if most == nil || len(q.items) > len(most.items) {
			most = q
		}
	}
	if most == nil {
		return false
	}
	s.fail(most, ErrOverflow)
	return true
}

// Copies is how many bytes wait in copies, made while the pool was empty.
func (s *Sender) Copies() int { return s.copied }

// Fail gives a connection up. An Event says so.
func (s *Sender) Fail(q *Queue, cause error) { s.fail(q, cause) }

// Drop forgets what waits for a connection.
func (s *Sender) Drop(q *Queue) { s.drop(q) }

// Events returns what became of connections since the last call. It is valid
// until something is sent.
func (s *Sender) Events() []Event {
	e := s.events
	s.events = s.events[:0]
	return e
}

// Close releases what sends. Queues must have been dropped.
func (s *Sender) Close() error {
	if s.io == nil {
		return nil
	}
	return s.io.Close()
}
