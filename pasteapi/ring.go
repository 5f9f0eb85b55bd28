package pasteapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/pasteapi/internal/conns"
	"github.com/pastenet/paste/pasteapi/internal/dgram"
	"github.com/pastenet/paste/pasteapi/internal/frames"
	"github.com/pastenet/paste/pasteapi/internal/inject"
	"github.com/pastenet/paste/pasteapi/internal/receive"
	"github.com/pastenet/paste/pasteapi/internal/send"
	"github.com/pastenet/paste/pasteapi/internal/trace"
	"github.com/pastenet/paste/pasteapi/internal/wait"
	"github.com/pastenet/paste/xsk"
)

// Ring is one pair of RX and TX rings with the connections registered to it.
// It does all of its work inside the application's calls, and is used by one
// goroutine at a time; Wake and Stats alone may be called from any.
type Ring struct {
	pair   ringPair
	frames *frames.Frames
	tk     *bpf.Ticket
	in     *receive.Receiver
	out    *send.Sender
	udp    datagrams
	wait   *wait.Waiter
	log    *slog.Logger
	veth   bool // the NIC is one

	conns    conns.Table[conn]
	maxConns int
	budget   int     // frames that may wait for slow peers when frames run low
	closing  []*conn // end when everything is sent

	jobs  chan *job // for the ring's goroutine
	ready []int     // watched descriptors that are readable
	pace  pace

	own       RingStats
	published Stats // for other goroutines
	reported  Stats // that the log knows of
	closed    bool
}

// conn is one registered connection: what comes in, and what goes out.
type conn struct {
	in      receive.Stream
	out     send.Queue
	owner   syscall.Conn // of the descriptor; nil: the application
	closing bool         // CloseAfterSend
	stuck   bool         // its peer does not take what is sent
	held    bool         // Hold
	room    bool         // WatchRoom

	dgram *dgram.Socket // of UDP, in place of in and out, but for in.Conn
	gone  bool          // it is not registered any more
}

// heldLeast is the least number of frames that may wait for slow peers, whatever
// the size of the pool.
const heldLeast = 256

func newRing(o *Options, id int, sw *trace.Switch) (_ *Ring, err error) {
	r := &Ring{frames: frames.New(o.Pool), maxConns: o.MaxConns, log: o.Logger, jobs: make(chan *job, 1),
		budget: max(heldLeast, int(o.Pool.Frames())/8/o.Rings)}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	r.pace.noTxPoll = o.NoTxPoll
	if err := r.pair.make(r.frames, o.ringMemory(id), o.Slots, id); err != nil {
		return nil, err
	}
	if r.tk, err = bpf.LoadTicket(bpf.TicketOptions{MaxConns: o.MaxConns}); err != nil {
		return nil, err
	}
	if r.wait, err = wait.New(o.Spin); err != nil {
		return nil, err
	}
	r.udp.make(r.frames, &r.pair.tx, r.wait)
	if err := r.wait.Watch(r.tk.PollFd(), wait.NIC); err != nil {
		return nil, err
	}
	if r.out, err = send.New(r.frames, &r.pair.tx, o.Slots, o.TxLimit, o.Send.means()); err != nil {
		return nil, err
	}
	tap := trace.NewTap(sw, id, r.identity)
	r.out.Trace(tap)
	r.udp.in.Trace(tap)
	r.udp.out.Trace(tap)
	var clock *receive.Clock
	if o.Stages {
		clock = receive.NewClock()
	}
	r.in = receive.New(r.frames, r.tk, r.wait, receive.Options{Clock: clock, Trace: tap, Durable: o.DurableAck, ReadFirst: o.Receive == ReceiveAuto, CopyFrom: o.CopyFrom})
	return r, nil
}

// attach gives the ring its NIC queues, and the device to inject into; both stay
// the caller's. onNIC says that what is injected comes in on the NIC.
func (r *Ring) attach(nics []*xsk.Socket, steer *bpf.Steer, order *bpf.Order, t *inject.Tap, onNIC, veth bool) error {
	inj, err := inject.New(t, order, onNIC, veth)
	if err != nil {
		return err
	}
	r.veth = veth
	r.in.Attach(nics, steer, order, inj)
	if err := r.tk.AttachTag(t.Ifindex()); err != nil {
		return err
	}
	for _, s := range nics {
		if err := r.wait.Watch(s.Fd(), wait.NIC); err != nil {
			return err
		}
	}
	return nil
}

// identity says which connection a descriptor is; nil: none of TCP.
func (r *Ring) identity(fd int) *conns.Conn {
	if c := r.conns.Find(fd); c != nil && c.dgram == nil {
		return &c.in.Conn
	}
	return nil
}

// RX is the ring of received payloads.
func (r *Ring) RX() *NetmapRing { return r.pair.rx.ring }

// TX is the ring of payloads to send.
func (r *Ring) TX() *NetmapRing { return r.pair.tx.ring }

// Queues is the number of NIC queues that belong to the ring. A ring without any
// steers nothing.
func (r *Ring) Queues() int { return r.in.Queues() }

// Keep takes a slot's buffer out of the ring and puts a free one in its place:
// the caller then owns one reference of the returned frame (pmem.Pool.Unref
// gives it up). It is how an application keeps a payload without copying it.
//
// Of a slot with NS_RUN the caller owns one reference of each frame in which there is
// payload: the returned one and those behind it, up to byte Len.
//
// Frames for Keep come from the pool, never from those that the port needs to
// go on receiving: with ErrNoBuffers the ring still works.
func (r *Ring) Keep(s *Slot) (frame uint32, err error) {
	if r.closed {
		return 0, ErrClosed
	}
	i, v := r.pair.find(s)
	if v == nil {
		return 0, fmt.Errorf("keep: slot is not in the ring: %w", ErrRingCorrupt)
	}
	if s.BufIdx != v.bufs[i] {
		return 0, fmt.Errorf("keep: %w", &RingError{Ring: v.name, Field: fmt.Sprintf("slot %d buf_idx", i),
			Value: uint64(s.BufIdx), Limit: fmt.Sprintf("%d, the ring's own buffer", v.bufs[i])})
	}
	frame = s.BufIdx
	n := max(1, (int(s.Len)+r.frames.Size()-1)/r.frames.Size())
	if n > 1 && !r.frames.IsRun(frame) {
		return 0, fmt.Errorf("keep: %w", &RingError{Ring: v.name, Field: fmt.Sprintf("slot %d len", i),
			Value: uint64(s.Len), Limit: fmt.Sprintf("up to %d, as the buffer is one frame", r.frames.Size())})
	}
	other, err := r.frames.ReplaceRun(frame, n)
	if err != nil {
		return 0, err
	}
	v.Exchange(i, other)
	return frame, nil
}

// Holds says whether the ring has a reference of a frame, whatever for.
func (r *Ring) Holds(frame uint32) bool { return r.frames.Owns(frame) }

// Watch makes Poll return when a descriptor of the application's is readable,
// a listener for example. It is level-triggered. Ready tells which.
func (r *Ring) Watch(fd int) error {
	if r.closed {
		return ErrClosed
	}
	if err := r.wait.Watch(fd, wait.User); err != nil {
		return fmt.Errorf("watch fd %d: %w", fd, err)
	}
	return nil
}

// Unwatch ends Watch.
func (r *Ring) Unwatch(fd int) error {
	if r.closed {
		return ErrClosed
	}
	if err := r.wait.Unwatch(fd); err != nil {
		return fmt.Errorf("unwatch fd %d: %w", fd, err)
	}
	return nil
}

// Ready lists the watched descriptors that the last Poll, or RxSync, found readable. It
// is valid until the next one.
func (r *Ring) Ready() []int { return r.ready }

// Wake makes the current or the next Poll return. It may be called from any
// goroutine, and does nothing after Close. For a Poll that is to end with a
// context: stop := context.AfterFunc(ctx, ring.Wake).
func (r *Ring) Wake() { r.wait.Wake() }

// interrupt ends a Poll that waits in another goroutine, and all that follow.
func (r *Ring) interrupt() { r.wait.Interrupt() }

// stamp writes the time of a sync into a ring's header.
func stamp(n *NetmapRing) {
	now := time.Now().UnixMicro()
	n.TsSec, n.TsUsec = now/1e6, now%1e6
}

// detach takes the NIC queues away. Closing them takes them from the waiter.
func (r *Ring) detach() error { return r.in.Detach() }

// job is something to do on the ring's goroutine.
type job struct {
	do    func() error
	done  chan error
	begun atomic.Bool // or given up: only one of them may say so
}

// run has the ring's goroutine do something when it looks at its events, which it
// is made to do soon if it waits, and waits for the end of it. With the context it
// ends for good: the job is not begun afterwards, but one that was begun may go on
// until Poll returns.
func (r *Ring) run(ctx context.Context, do func() error) error {
	j := &job{do: do, done: make(chan error, 1)}
	select {
	case r.jobs <- j:
	case <-ctx.Done():
		return ctx.Err()
	}
	r.wait.Nudge()
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		j.begun.CompareAndSwap(false, true)
		return ctx.Err()
	}
}

// work does what others have asked for.
func (r *Ring) work() {
	select {
	case j := <-r.jobs:
		if j.begun.CompareAndSwap(false, true) {
			j.done <- j.do()
		}
	default:
	}
}

// close releases everything. NIC sockets and the injection device are the
// Port's.
func (r *Ring) close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	var errs []error
	r.conns.All(func(c *conn) { errs = append(errs, r.unregister(c)) })
	if r.in != nil {
		errs = append(errs, r.in.Detach())
	}
	if r.out != nil {
		errs = append(errs, r.out.Close())
	}
	if r.wait != nil {
		errs = append(errs, r.wait.Close())
	}
	if r.tk != nil {
		errs = append(errs, r.tk.Close())
	}
	r.pair.settle()
	r.checkInvariants()
	errs = append(errs, r.audit())
	r.frames.Close()
	errs = append(errs, r.pair.close())
	return errors.Join(errs...)
}
