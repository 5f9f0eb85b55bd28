package receive

import (
	"errors"
	"fmt"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/pasteapi/internal/conns"
	"github.com/pastenet/paste/pasteapi/internal/frames"
	"golang.org/x/sys/unix"
)

// CopiedDoff is where copied payloads start in their buffer, bytes: a cache line
// boundary, as flushing works by the line.
const CopiedDoff = 64

// Slot flags.
const (
	flagCopied = 0x8000 // a payload that was copied (NS_COPIED)
	flagRun    = 0x4000 // in a run of frames (NS_RUN)
	flagMore   = 0x0020 // and there is more to come of what was announced (NS_MOREFRAG)
)

// copied is the way of the verdict's deliveries. One tells what TCP accepted of
// a connection: the bytes of a ticket, which are those of the steered way, or
// bytes that the verdict has copied behind it, or that bytes wait in the socket.
type copied struct {
	frames   *frames.Frames
	count    *Counters
	clock    *Clock
	tk       *bpf.Ticket
	steered  *steered
	ready    *ready
	watch    Watcher
	byCookie map[uint64]*Stream
	removed  map[uint64]struct{} // cookies of which deliveries may be on their way
	sockets  int                 // how many connections are read from their sockets
	lost     uint32              // deliveries lost so far
	short    bool                // there were no frames for a delivery that may wait
}

func (w *copied) pending() bool { return !w.short && w.tk.Pending() }

func (w *copied) fetch() error {
	was := w.clock.enter(Deliver)
	w.readDeliveries()
	w.clock.enter(was)
	return nil
}

// readDeliveries takes what TCP delivered since the last look. Like readRing it
// reports whether that is all.
func (w *copied) readDeliveries() bool {
	all := w.readRing()
	if all && len(w.removed) > 0 {
		clear(w.removed)
	}
	lost := w.tk.Overflows()
	if lost == w.lost {
		return all
	}
	// What a connection got before its first lost record may have come since
	// the look above, and comes first. Afterwards it gets no more records.
	streams := w.overflowed()
	if !w.readRing() {
		return false // the next call tries again
	}
	w.lost = lost
	for _, s := range streams {
		w.overflow(s)
	}
	return true
}

// readRing reports whether it has seen everything: a record may be in
// the making, and buffers to copy into may be short.
func (w *copied) readRing() bool {
	room := w.frames.Size() - CopiedDoff
	need := (bpf.DeliveryMax + room - 1) / room
	for {
		if w.short = !w.frames.Ensure(need); w.short {
			break
		}
		d := w.tk.Next()
		if d == nil {
			break
		}
		if d.Ticket != 0 {
			w.claimed(d)
		} else {
			w.unclaimed(d)
		}
	}
	w.tk.Release()
	return !w.tk.Pending()
}

// claimed takes the frames that a claimed ticket stands for. The kernel may
// have accepted only some of the bytes: those before d.Seq it had already.
func (w *copied) claimed(d *bpf.Delivery) {
	slot := uint16(d.Ticket)
	t := &w.steered.tickets.info[slot]
	s := t.stream
	if s == nil {
		w.steered.drop(slot)
		return
	}
	s.sync(d.Consumed)
	s.catchUp(d.Seq)
	end := d.Seq + d.Len
	seq := t.seq
	for _, p := range t.parts {
		skip := max(int32(s.next-seq), 0)
		n := min(int32(p.len), int32(end-seq)) - skip
		if n > 0 {
			off := w.reachable(p.frame, int(p.off)+int(skip), int(n))
			w.push(s, piece{kind: inFrame, frame: p.frame, off: uint16(off), len: uint32(n), skip: d.Ticket})
			s.next += uint32(n)
			w.count.Steered++
			w.count.SteeredBytes += uint64(n)
		} else {
			w.frames.Give(p.frame)
		}
		seq += uint32(p.len)
	}
	w.steered.tickets.retire(slot)
	w.delivered(s, d)
}

// delivered ends what every delivery brings with it.
func (w *copied) delivered(s *Stream, d *bpf.Delivery) {
	w.steered.passed(s)
	if d.Flags&bpf.DeliveryFin != 0 {
		s.end(nil)
	}
	w.ready.add(s)
}

// push queues a payload in a frame, or takes the frame back if nobody wants it.
func (w *copied) push(s *Stream, p piece) {
	if s.wants() {
		s.push(p)
	} else {
		w.frames.Give(p.frame)
	}
}

// maxDoff is the largest payload offset that a slot can carry.
const maxDoff = 1<<10 - 1

// reachable returns the offset of n bytes that lie at off in a frame, after
// moving them to where a slot can point if that is too far back: a
// retransmission may have reached back by almost a segment.
func (w *copied) reachable(frame uint32, off, n int) int {
	if off <= maxDoff {
		return off
	}
	f := w.frames.Bytes(frame)
	copy(f[CopiedDoff:], f[off:off+n])
	if w.steered.durable {
		// They have been acknowledged; the fence comes before the next ones are.
		w.frames.Flush(frame, CopiedDoff, n)
	}
	return CopiedDoff
}

// unclaimed takes bytes that came without a ticket: those behind the record are
// copied into frames, others are noted, to be read from the socket when it is
// their turn.
func (w *copied) unclaimed(d *bpf.Delivery) {
	s := w.byCookie[d.Cookie]
	if s == nil {
		return // unregistered meanwhile
	}
	s.sync(d.Consumed)
	skip := min(s.catchUp(d.Seq), d.Len)
	switch {
	case d.Len == 0:
	case d.Flags&bpf.DeliveryData != 0:
		w.copy(s, d.Data()[skip:])
	case s.wants():
		s.push(piece{kind: inSocket, skip: skip, len: d.Len - skip})
	}
	if end := d.Seq + d.Len; int32(end-s.next) > 0 {
		s.next = end
	}
	w.delivered(s, d)
}

// copy moves bytes out of the ring of deliveries.
func (w *copied) copy(s *Stream, data []byte) {
	w.count.Copied++
	w.count.CopiedBytes += uint64(len(data))
	w.limit(s, len(data))
	for len(data) > 0 {
		f, ok := w.frames.Take()
		if !ok {
			// It cannot be: readRing looked whether there are enough.
			s.end(frames.ErrNone)
			return
		}
		n := copy(w.frames.Bytes(f)[CopiedDoff:], data)
		w.push(s, piece{kind: inFrame, flags: flagCopied, frame: f, off: CopiedDoff, len: uint32(n)})
		data = data[n:]
	}
}

// fromSocket says whether the bytes of a connection wait in its socket.
func (w *copied) fromSocket(s *Stream, yes bool) {
	if s.socket == yes {
		return
	}
	s.socket = yes
	if yes {
		w.sockets++
	} else {
		w.sockets--
	}
}

// overflowed finds the connections that lost deliveries because the ring of
// deliveries was full.
func (w *copied) overflowed() []*Stream {
	var streams []*Stream
	cookies, err := w.tk.Lost()
	if err != nil {
		// The map has changed all the time while it was read: look at everything.
		cookies = cookies[:0]
		for cookie := range w.byCookie {
			if _, yes := w.tk.Overflowed(cookie); yes {
				cookies = append(cookies, cookie)
			}
		}
	}
	for _, cookie := range cookies {
		if s := w.byCookie[cookie]; s != nil && !s.lost {
			streams = append(streams, s)
		}
	}
	return streams
}

// overflow goes on without deliveries: from the first lost one on, all bytes of
// the connection stay in the socket, so they are read there.
func (w *copied) overflow(s *Stream) {
	s.lost = true
	w.fromSocket(s, true)
	if s.beyond >= 0 { // else it was wanted
		w.count.Overflowed++
	}
	if o, _ := w.tk.Overflowed(s.Cookie); s.wants() {
		if s.synced && int32(s.next-o.First) > 0 {
			s.push(piece{kind: inSocket, skip: s.next - o.First})
		}
		s.push(piece{kind: allSocket})
	}
	w.count.Syscalls++
	// Only memory can be short for it, and then the sweep finds the bytes.
	_ = w.watch.WantInput(s.FD, true)
	w.ready.add(s)
}

// repeats says whether what was read from a socket may contain bytes twice: a
// retransmission reached back, and nothing says where.
func (w *copied) repeats(s *Stream) bool {
	if !s.lost {
		return false
	}
	o, _ := w.tk.Overflowed(s.Cookie)
	return o.Overlaps > 0
}

// add puts a connection under the verdict. What waits in its socket must have
// been read before: then the verdict only ever sees whole segments of which
// nothing was consumed.
func (w *copied) add(s *Stream) error {
	if err := w.forget(s.Cookie); err != nil {
		return err
	}
	err := w.tk.AddSocket(s.Cookie, s.FD)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP) && s.HalfClosed():
		// The peer has finished already, which an ordinary client may do
		// before it is registered. All that it sent waits in the socket.
		w.leave(s)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: it is not in state ESTABLISHED", conns.ErrNotConnected)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: another ring, or another program, has it in a sockmap", conns.ErrRegistered)
	case err != nil:
		return err
	}
	w.byCookie[s.Cookie] = s
	return nil
}

// leave has a connection that is not under the verdict read from its socket.
func (w *copied) leave(s *Stream) {
	w.fromSocket(s, true)
	s.push(piece{kind: allSocket})
	w.byCookie[s.Cookie] = s
}

// forget reads the deliveries of a socket that was removed a moment ago, which
// are not for the stream that it has now.
func (w *copied) forget(cookie uint64) error {
	for range 1000 { // one may be in the making, which takes the other CPU a moment
		if _, yes := w.removed[cookie]; !yes {
			return nil
		}
		w.readDeliveries()
		if w.short {
			break
		}
	}
	return frames.ErrNone
}

// remove takes a connection from the verdict.
func (w *copied) remove(s *Stream) error {
	delete(w.byCookie, s.Cookie)
	w.removed[s.Cookie] = struct{}{}
	w.fromSocket(s, false)
	return w.tk.RemoveSocket(s.Cookie)
}
