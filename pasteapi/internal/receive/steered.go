package receive

import (
	"fmt"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/pasteapi/internal/conns"
	"github.com/pastenet/paste/pasteapi/internal/frames"
	"github.com/pastenet/paste/pasteapi/internal/inject"
	"github.com/pastenet/paste/pasteapi/internal/trace"
	"github.com/pastenet/paste/pasteapi/internal/wire"
	"github.com/pastenet/paste/xsk"
)

const (
	// harvestBatch is the most frames taken from one NIC queue in one sync.
	harvestBatch = 256
	// FillSize is how many frames are posted to a NIC queue, at most.
	FillSize = 2048
)

// steered is the way of the NIC's frames: they stay where the NIC put them, a
// copy of each goes through the kernel's TCP with a ticket, and when TCP has
// accepted it, the verdict's delivery claims the ticket.
type steered struct {
	frames  *frames.Frames
	count   *Counters
	clock   *Clock
	trace   *trace.Tap
	nics    []*xsk.Socket // this ring's NIC queues
	steer   *bpf.Steer    // nil without a NIC
	order   *bpf.Order    // the same
	inj     *inject.Injector
	tickets *tickets
	flows   conns.Flows[Stream]
	scratch []xsk.Desc
	unnamed []uint32             // frames without a ticket: free when it is injected
	holders map[*Stream]struct{} // for which something is held
	held    int                  // frames that are
	durable bool                 // flush payloads before they are injected
	full    bool                 // the application has no room: take nothing from the NIC
	starved bool                 // a NIC queue has hardly a frame to receive into
	behind  bool                 // the NIC queues let nothing pass, see updateBehind
}

// attach gives the way its NIC queues and its injector.
func (w *steered) attach(nics []*xsk.Socket, steer *bpf.Steer, order *bpf.Order, inj *inject.Injector) {
	w.nics, w.steer, w.order, w.inj = nics, steer, order, inj
	for _, s := range nics {
		w.refill(s)
	}
}

// detach takes them away. Frames that they have are not used any more.
func (w *steered) detach() { w.nics, w.steer, w.order, w.inj = nil, nil, nil, nil }

func (w *steered) pending() bool {
	for _, s := range w.nics {
		if s.RxPending() {
			return true
		}
	}
	return false
}

// fetch takes what the NIC has received and injects it.
func (w *steered) fetch() error {
	if len(w.nics) == 0 {
		w.starved = false
		return nil
	}
	was := w.clock.enter(Harvest)
	defer func() { w.clock.enter(was) }()
	if !w.full {
		for _, s := range w.nics {
			w.harvest(s)
		}
	}
	if err := w.injectBatch(); err != nil {
		return err
	}
	w.starved = false
	for _, s := range w.nics {
		w.refill(s)
	}
	return nil
}

// harvest takes received frames from a NIC queue and puts them into the
// injection batch.
func (w *steered) harvest(s *xsk.Socket) {
	n := s.Receive(w.scratch[:min(harvestBatch, w.inj.Room())])
	w.count.Frames += uint64(n)
	was := w.clock.enter(Ticket)
	for i := range w.scratch[:n] {
		d := &w.scratch[i]
		frame, at := w.frames.At(d.Addr)
		w.frames.Arrived(frame)
		w.inject(frame, at, uint16(d.Len))
	}
	w.clock.enter(was)
}

// inject puts a frame into the batch, with a ticket when its connection is
// registered.
func (w *steered) inject(frame uint32, at, length uint16) {
	f := w.frames.Bytes(frame)[at:][:length]
	var seg wire.Segment
	if at < inject.VnetHeaderSize || !seg.Parse(f) {
		// The steering program lets nothing else through.
		w.count.Malformed++
		w.frames.Give(frame)
		return
	}
	ticket := uint32(0)
	s := w.flows.Find(&seg, f)
	if s != nil {
		if s.holding {
			w.keep(s, heldFrame{frame, at, length})
			return
		}
		off, n := int(at)+seg.Payload, seg.Len()
		if w.durable {
			w.frames.Flush(frame, off, n)
		}
		if !s.socket {
			if w.inj.Merge(s.merge.Key, f, &seg) {
				w.tickets.extend(s.merge.slot, frame, off, n)
				w.count.Injected++
				w.count.Merged++
				return
			}
			ticket = w.issue(s, frame, off, n, seg.Seq)
		}
	}
	key := w.inj.Add(f, &seg, ticket)
	if ticket == 0 {
		w.count.NoTicket++
		w.unnamed = append(w.unnamed, frame)
	} else {
		s.merge = mergeKey{key, uint16(ticket)}
	}
	w.count.Injected++
}

// issue makes a ticket. What TCP neither takes nor drops where it can be seen (a
// bad checksum, a hole before it) keeps its ticket until the sweep: where all are
// out, the oldest ones are taken back before that, so that a peer that sends
// nothing but such segments costs the others no tickets.
func (w *steered) issue(s *Stream, frame uint32, off, n int, seq uint32) uint32 {
	if w.tickets.count == 0 {
		if old := w.tickets.reclaimOld(); old != none {
			w.count.Reclaimed++
			w.drop(old)
		}
	}
	return w.tickets.issue(s, frame, off, n, seq)
}

// release injects what was held, at once: until a packet is injected its
// frames must not be taken back, and after this any delivery may do that.
func (w *steered) release(s *Stream) error {
	if !s.holding {
		return nil
	}
	// Small segments pass the NIC queue again when the held ones are in.
	defer w.order.EndForce(s.Flow)
	s.holding = false
	for _, h := range w.takeHeld(s) {
		if w.inj.Room() == 0 {
			if err := w.injectBatch(); err != nil {
				w.frames.Give(h.frame)
				continue
			}
		}
		w.inject(h.frame, h.off, h.len)
	}
	return w.injectBatch()
}

// injectBatch sends the batch into TCP.
func (w *steered) injectBatch() error {
	if w.inj == nil || w.inj.Len() == 0 {
		return nil
	}
	if w.durable {
		if err := w.frames.Fence(); err != nil {
			return fmt.Errorf("make received payload durable: %w", err)
		}
	}
	was := w.clock.enter(Inject)
	failed, err := w.inj.Inject()
	w.clock.enter(was)
	w.tickets.batch++
	w.count.Syscalls++
	w.count.InjectFailed += failed
	for _, f := range w.unnamed {
		w.frames.Give(f)
	}
	w.unnamed = w.unnamed[:0]
	return err
}

// refill posts free frames to a NIC queue.
func (w *steered) refill(s *xsk.Socket) {
	if want := s.FillFree(); want >= 32 {
		posted := w.frames.Post(want)
		s.FillFrames(posted)
		w.starved = w.starved || want-len(posted) > s.FillSize()-64
	}
	// Also when nothing was posted: a driver that has found the ring empty may
	// raise the flag only after frames were put there and the flag was read.
	if s.FillNeedsWakeup() {
		w.count.Syscalls++
		if err := s.WakeRx(); err != nil {
			w.count.WakeErrors++
		}
	}
}

// updateBehind stops segments from passing the NIC queues while the application
// has no room for them: what waits there makes TCP's window close, what the
// kernel delivers takes buffers.
func (w *steered) updateBehind() {
	behind := w.full || w.starved
	if behind == w.behind {
		return
	}
	w.behind = behind
	for _, s := range w.nics {
		w.order.ForceQueue(s.Queue(), behind)
	}
}

// drop ends a ticket and gives its frames back to the circulation.
func (w *steered) drop(slot uint16) {
	if w.trace.On() {
		w.tracedDrop(slot)
	}
	for _, p := range w.tickets.info[slot].parts {
		w.frames.Give(p.frame)
	}
	w.tickets.retire(slot)
}

// passed takes back the frames of duplicates: the kernel dropped them, as all
// of their bytes were there already.
func (w *steered) passed(s *Stream) {
	for slot := s.tickets.first; slot != none; slot = s.tickets.first {
		t := &w.tickets.info[slot]
		if int32(t.seq+t.length-s.next) > 0 || !w.tickets.reclaim(slot) {
			return
		}
		w.count.Reclaimed++
		w.drop(slot)
	}
}

// sweep takes back frames that the kernel has kept or dropped silently: bad
// checksum, out of the window, a hole that was never filled. Should TCP accept
// one of them later, its bytes are copied. It is called about once a second.
func (w *steered) sweep() {
	t := w.tickets
	t.epoch++
	for slot := range t.info {
		i := &t.info[slot]
		if i.busy && t.epoch-i.epoch > 2 && t.reclaim(uint16(slot)) {
			w.count.Reclaimed++
			w.drop(uint16(slot))
		}
	}
}

// add has the segments of a connection steered. Where there is no room for that
// it is copied.
func (w *steered) add(s *Stream) {
	w.flows.Add(&s.Conn, s)
	if len(w.nics) == 0 || s.socket || !w.inj.OnNIC() && s.OnOneDevice() {
		return
	}
	w.count.Syscalls++
	device := 0
	if w.steer.HasVLANs() {
		device = s.Device()
	}
	ring := w.nics[0].Queue() // the first of a ring's queues has its number
	if err := w.steer.AddConn(s.Peer, s.Local, device, ring); err != nil {
		w.count.Unsteered++
	}
}

// remove forgets a stream. Tickets that were claimed are freed by the delivery
// on its way.
func (w *steered) remove(s *Stream) (err error) {
	if w.flows.Remove(&s.Conn, s) && w.steer != nil {
		w.count.Syscalls++
		err = w.steer.RemoveConn(s.Peer, s.Local)
	}
	for slot := s.tickets.first; slot != none; {
		next := w.tickets.info[slot].next
		if w.tickets.reclaim(slot) {
			w.drop(slot)
		} else {
			w.tickets.unlink(s, slot)
			w.tickets.info[slot].stream = nil
		}
		slot = next
	}
	w.freeHeld(s)
	w.letPass(s)
	return err
}

// close ends the injector.
func (w *steered) close() error {
	if w.inj == nil {
		return nil
	}
	err := w.inj.Close()
	w.detach()
	return err
}
