package pasteapi

import (
	"fmt"

	"github.com/pastenet/paste/xsk"
)

const (
	// harvestBatch is the most frames taken from one NIC queue in one sync.
	harvestBatch = 256
	// heldLimit bounds the frames that wait for a connection whose sending is
	// stuck. Beyond it frames are dropped, and TCP sends them again.
	heldLimit = 512
	// freeFloor is how many frames are never posted to the NIC: when the pool is
	// empty, connections can still be registered and bytes copied.
	freeFloor = 64
	// fillSize is how many frames are posted to a NIC queue.
	fillSize = 2048
)

// heldFrame is a received frame that was not injected yet.
type heldFrame struct {
	frame uint32
	off   uint16 // of the Ethernet header in the frame
	len   uint16
}

// RxSync makes received payloads available in the RX ring, and returns how
// many slots the application owns there now. Slots before Head are given back
// to the port. It never blocks.
func (r *Ring) RxSync() (int, error) {
	if r.closed {
		return 0, ErrClosed
	}
	given, err := r.rxView.accept(r.pool)
	if err != nil {
		r.stats.RingErrors++
		return 0, err
	}
	r.rxView.head = r.rx.Head
	if given > 0 {
		r.rxFull = false
	}
	if err := r.receive(); err != nil {
		return 0, err
	}
	r.emit()
	r.updateBehind()
	return int(r.rxView.distance(r.rxView.head, r.rxView.tail)), nil
}

// receive moves frames from the NIC into TCP and notes what TCP accepted.
func (r *Ring) receive() error {
	if !r.rxFull {
		for _, s := range r.nics {
			r.harvest(s)
		}
	}
	if len(r.inj.batch) > 0 {
		if err := r.flush(); err != nil {
			return err
		}
	}
	r.starved = false
	for _, s := range r.nics {
		r.refill(s)
	}
	r.drain()
	return nil
}

// updateBehind stops segments from passing the NIC queues while the application
// has no room for them: what waits there makes TCP's window close, what the
// kernel delivers takes buffers.
func (r *Ring) updateBehind() {
	behind := r.rxFull || r.starved
	if behind == r.behind {
		return
	}
	r.behind = behind
	for _, s := range r.nics {
		r.order.SteerAll(s.Queue(), behind)
	}
}

// flush injects the batch.
func (r *Ring) flush() error {
	if r.durable {
		if err := r.pool.Fence(); err != nil {
			return fmt.Errorf("make received payload durable: %w", err)
		}
	}
	failed, err := r.inj.flush()
	r.stats.Syscalls++
	r.stats.InjectFailed += failed
	for _, f := range r.inj.unnamed {
		r.giveFrame(f)
	}
	r.inj.unnamed = r.inj.unnamed[:0]
	return err
}

// harvest takes received frames from a NIC queue and puts them into the
// injection batch, with a ticket when their connection is registered.
func (r *Ring) harvest(s *xsk.Socket) {
	n := s.Receive(r.scratch[:min(harvestBatch, r.inj.room())])
	if n == 0 {
		return
	}
	r.stats.Frames += uint64(n)
	for i := range r.scratch[:n] {
		d := &r.scratch[i]
		frame := uint32(d.Addr >> r.shift)
		at := d.Addr & (1<<r.shift - 1)
		r.inject(frame, uint16(at), uint16(d.Len))
	}
}

func (r *Ring) inject(frame uint32, at, length uint16) {
	f := r.frame(frame)[at:][:length]
	var seg segment
	if at < vnetHeaderSize || !seg.parse(f) {
		// The steering program lets nothing else through.
		r.stats.Malformed++
		r.giveFrame(frame)
		return
	}
	ticket := uint32(0)
	c := r.flows.find(&seg, f)
	if c != nil {
		if len(c.held) > 0 || c.queued > r.txLimit/4 {
			r.hold(c, heldFrame{frame, at, length})
			return
		}
		if r.durable {
			r.pool.Flush(r.pool.Offset(frame, int(at)+seg.payload), uint64(seg.end-seg.payload))
		}
		if !c.copyOnly {
			off, n := int(at)+seg.payload, seg.end-seg.payload
			if r.inj.merge(c.merge, f, &seg) {
				r.tickets.extend(c.merge.slot, frame, off, n)
				r.stats.Injected++
				r.stats.Merged++
				return
			}
			ticket = r.tickets.issue(c, frame, off, n, seg.seq)
			c.merge = mergeKey{r.inj.serial, int32(len(r.inj.batch)), uint16(ticket)}
		}
	}
	if ticket == 0 {
		r.stats.Unticketed++
		r.inj.unnamed = append(r.inj.unnamed, frame)
	}
	r.inj.add(f, &seg, ticket)
	r.stats.Injected++
}

// hold keeps a frame of a connection that does not take its replies. As it is
// not injected it is not acknowledged, so the peer slows down.
func (r *Ring) hold(c *conn, h heldFrame) {
	if len(c.held) >= heldLimit {
		r.stats.HeldDropped++
		r.giveFrame(h.frame)
		return
	}
	r.stats.Held++
	c.held = append(c.held, h)
}

// resume injects what was held back, at once: until a packet is flushed its
// frames must not be taken back, and after this any record of a delivery may
// do that.
func (r *Ring) resume(c *conn) {
	held := c.held
	c.held = nil
	for _, h := range held {
		if r.inj.room() == 0 {
			if err := r.flush(); err != nil {
				c.held = append(c.held, h)
				continue
			}
		}
		r.inject(h.frame, h.off, h.len)
	}
	if len(r.inj.batch) > 0 {
		// A device that takes nothing any more shows in the next sync; TCP
		// sends again.
		_ = r.flush()
	}
	r.letPass(c)
}

// stop has everything of a connection steered, so that it can be held back.
func (r *Ring) stop(c *conn) {
	if !c.stopped && r.order != nil {
		c.stopped = true
		r.order.Hold(c.flow)
	}
}

// letPass ends stop.
func (r *Ring) letPass(c *conn) {
	if c.stopped {
		c.stopped = false
		r.order.Resume(c.flow)
	}
}

func (r *Ring) freeHeld(c *conn) {
	for _, h := range c.held {
		r.giveFrame(h.frame)
	}
	c.held = nil
}

// refill posts free frames to a NIC queue.
func (r *Ring) refill(s *xsk.Socket) {
	if want := s.FillFree(); want >= 32 {
		r.post(s, want)
	}
	// Also when nothing was posted: a driver that has found the ring empty may
	// raise the flag only after frames were put there and the flag was read.
	if s.FillNeedsWakeup() {
		r.stats.Syscalls++
		if err := s.WakeRx(); err != nil {
			r.stats.WakeErrors++
		}
	}
}

// post gives the NIC up to want frames.
func (r *Ring) post(s *xsk.Socket, want int) {
	if need := want + freeFloor; len(r.free) < need {
		var batch [256]uint32
		n := r.pool.Alloc(batch[:min(need-len(r.free), len(batch))])
		r.owned.addAll(batch[:n])
		r.free = append(r.free, batch[:n]...)
	}
	if n := min(want, len(r.free)-freeFloor); n > 0 {
		rest := len(r.free) - n
		s.FillFrames(r.free[rest:])
		r.free = r.free[:rest]
		want -= n
	} else {
		r.stats.NoFrames++
	}
	r.starved = r.starved || want > fillSize-64
}
