package receive

import (
	"errors"
	"slices"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/pasteapi/internal/conns"
	"github.com/pastenet/paste/pasteapi/internal/frames"
	"github.com/pastenet/paste/pasteapi/internal/inject"
	"github.com/pastenet/paste/pasteapi/internal/trace"
	"github.com/pastenet/paste/xsk"
)

// Watcher is told of a socket whose input is to wake the ring up. Others may
// not: the verdict takes bytes away without telling poll.
type Watcher interface {
	WantInput(fd int, yes bool) error
}

// Receiver joins the ways in of one ring. It belongs to the ring's goroutine.
type Receiver struct {
	Counters
	frames    *frames.Frames
	clock     *Clock
	steered   steered
	copied    copied
	read      read
	ways      [4]way // those, and the switcher, in the order in which they are asked
	switcher  switcher
	ready     ready
	readFirst bool      // Options.ReadFirst
	hungup    []*Stream // an event says that they ended
}

// Options of a Receiver.
type Options struct {
	// Durable has payload of registered connections flushed before it is injected.
	Durable bool
	// ReadFirst has connections that are not steered read from their sockets, until
	// they have brought little for a while.
	ReadFirst bool
	// CopyFrom is from how many connections on that had something since the ring slept,
	// on average, that is done.
	CopyFrom int
	// Clock measures the stages; nil: nobody does.
	Clock *Clock
	// Trace is told of what is given out; nil: nobody is.
	Trace *trace.Tap
}

// New returns a receiver without a NIC. The programs behind tk stay the
// caller's.
func New(f *frames.Frames, tk *bpf.Ticket, w Watcher, o Options) *Receiver {
	r := &Receiver{frames: f, clock: o.Clock, readFirst: o.ReadFirst}
	if o.Trace == nil {
		o.Trace = trace.Off
	}
	r.steered = steered{
		trace:  o.Trace,
		frames: f, count: &r.Counters, clock: o.Clock, durable: o.Durable,
		tickets: newTickets(tk.Table()), flows: conns.NewFlows[Stream](), holders: map[*Stream]struct{}{}, scratch: make([]xsk.Desc, harvestBatch),
	}
	r.copied = copied{
		frames: f, count: &r.Counters, clock: o.Clock, tk: tk, steered: &r.steered,
		ready: &r.ready, watch: w, byCookie: map[uint64]*Stream{}, removed: map[uint64]struct{}{},
	}
	r.read = read{frames: f, count: &r.Counters, clock: o.Clock, ready: &r.ready}
	r.switcher = switcher{copied: &r.copied, read: &r.read, watch: w, ready: &r.ready, copyFrom: o.CopyFrom}
	r.ways = [...]way{&r.steered, &r.copied, &r.switcher, &r.read}
	return r
}

// Attach gives the receiver NIC queues, whose frames it receives from now on,
// and the injector, which is the receiver's to close. Connections that are there
// already are steered, too.
func (r *Receiver) Attach(nics []*xsk.Socket, steer *bpf.Steer, order *bpf.Order, inj *inject.Injector) {
	r.steered.attach(nics, steer, order, inj)
	for _, s := range r.copied.byCookie {
		s.merge = mergeKey{} // of another injector, whose batches have the same numbers
		r.steered.add(s)
	}
}

// Detach takes the NIC queues away and closes the injector. What is held is
// dropped. Frames that the NIC has stay with it until Recall.
func (r *Receiver) Detach() error {
	for _, s := range r.copied.byCookie {
		r.DropHeld(s)
	}
	return r.steered.close()
}

// Recall takes back the frames that a NIC had that was detached, and whose queues
// are closed.
func (r *Receiver) Recall() { r.frames.Recall() }

// Clock measures the stages; nil: nobody does.
func (r *Receiver) Clock() *Clock { return r.clock }

// Queues is the number of NIC queues.
func (r *Receiver) Queues() int { return len(r.steered.nics) }

// Reading says whether there are connections that are read from their sockets: what
// comes of them shows in events only.
func (r *Receiver) Reading() bool { return r.copied.sockets > 0 }

// Starved says whether a NIC queue has hardly a frame to receive into.
func (r *Receiver) Starved() bool { return r.steered.starved }

// Waiting says whether there is something to look at again soon for which no
// event comes: bytes that the kernel queues late, the end of a connection, or
// deliveries for which there were no frames.
func (r *Receiver) Waiting() bool {
	return len(r.read.waiting) > 0 || r.copied.short ||
		slices.ContainsFunc(r.hungup, func(s *Stream) bool { return !s.paused })
}

// InFlight says whether Sweep may have something to do.
func (r *Receiver) InFlight() bool { return r.steered.tickets.any() }

// Pending says whether a Fetch may find something, without a system call.
func (r *Receiver) Pending() bool {
	if len(r.ready.streams) > 0 {
		return true
	}
	for _, w := range r.ways {
		if w.pending() {
			return true
		}
	}
	return false
}

// Sleeping tells the verdict whether it has to wake the ring up. Look at Pending
// once more after saying so.
func (r *Receiver) Sleeping(yes bool) {
	r.copied.tk.Sleeping(yes)
	if yes {
		r.switcher.sleeps()
	}
}

// Fetch takes in what has arrived by all ways.
func (r *Receiver) Fetch() error {
	for _, w := range r.ways {
		if err := w.fetch(); err != nil {
			return err
		}
	}
	return nil
}

// Room says that the application has given slots back.
func (r *Receiver) Room() { r.steered.full = false }

// Add puts a connection under the receiver: bytes that wait in its socket come
// first. Call Start when everything else is ready for it.
func (r *Receiver) Add(s *Stream) error {
	err := r.read.rest(s)
	if err == nil && r.readFirst && r.steered.steer == nil {
		r.copied.leave(s)
		return nil
	}
	if err == nil {
		err = r.copied.add(s)
	}
	if errors.Is(err, frames.ErrNone) {
		// No frame for what waits: it is read when there is one.
		r.copied.leave(s)
		err = nil
	}
	if err != nil {
		r.read.free(s)
		return err
	}
	r.steered.add(s)
	return nil
}

// Start has the verdict look at segments that arrived between the reading of the
// socket and Add.
func (r *Receiver) Start(s *Stream) error {
	r.ready.add(s)
	if s.socket {
		r.Syscalls++
		return r.copied.watch.WantInput(s.FD, true)
	}
	r.peek(s)
	return nil
}

// Join puts a connection that is read under the verdict at the next Fetch, if that
// can be done then.
func (r *Receiver) Join(s *Stream) { r.switcher.joining = append(r.switcher.joining, s) }

// Expect says that the next n bytes of a connection that were not handed to slots
// yet are one payload, and that slots longer than a frame may come from now on.
func (r *Receiver) Expect(s *Stream, n int64) {
	s.long = true
	s.expected = n
	if n >= readAt {
		s.large = true // it is no use to have the verdict copy that
	}
}

// Remove takes a connection out; what was not given out is dropped.
func (r *Receiver) Remove(s *Stream) error {
	s.gone, s.mute = true, true
	err := errors.Join(r.copied.remove(s), r.steered.remove(s))
	r.read.free(s)
	return err
}

// Mute drops what was not given out, and all that follows.
func (r *Receiver) Mute(s *Stream) {
	s.mute = true
	r.read.free(s)
}

// Hold has nothing more of a connection acknowledged, as far as it is steered, or
// read: then its socket fills, and its peer has to wait.
func (r *Receiver) Hold(s *Stream) {
	r.steered.hold(s)
	s.paused = true
}

// Release ends Hold. What was held back comes first.
func (r *Receiver) Release(s *Stream) error {
	s.paused = false
	s.beyond = min(s.beyond, 0)
	r.ready.add(s)
	return r.steered.release(s)
}

// FromSocket says whether a connection is read from its socket.
func (r *Receiver) FromSocket(s *Stream) bool { return s.socket }

// Held is how many frames are held.
func (r *Receiver) Held() int { return r.steered.held }

// DropMost drops what is held for the connection for which most is. TCP sends it
// again. The result is how many frames that were.
func (r *Receiver) DropMost() int { return r.steered.dropMost() }

// DropHeld drops what is held back; TCP sends it again.
func (r *Receiver) DropHeld(s *Stream) {
	r.steered.freeHeld(s)
	r.steered.letPass(s)
	s.paused = false
	r.ready.add(s)
}

// Sweep is called about once a second: it takes back what the kernel dropped
// silently.
func (r *Receiver) Sweep() { r.steered.sweep() }
