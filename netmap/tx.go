package netmap

import (
	"fmt"

	"github.com/pastenet/paste/xsk"
)

// txQueue sends the slots of a ring by a NIC's queue. A slot stays with the kernel,
// with its buffer, until that was sent; then it is the program's again, in order.
//
//	done            next               head           tail
//	 │ with the kernel │ not sent yet     │ the program's │
type txQueue struct {
	*queue
	done, next uint32
	sent       []bool   // by slot: the kernel is done with it
	slotOf     []uint32 // by buffer: 1 + the slot that it is in flight from
	before     []uint32 // by slot: what slotOf was before
	descs      []xsk.Desc
	addrs      []uint64
	count      TxStats
	skipping   bool // the rest of a frame that had too many slots
}

func newTxQueue(q *queue, slots int) *txQueue {
	return &txQueue{queue: q, sent: make([]bool, slots), slotOf: make([]uint32, len(q.mem.owner)), before: make([]uint32, slots),
		descs: make([]xsk.Desc, 0, slots), addrs: make([]uint64, 256)}
}

// sync sends the slots up to head, and gives back those that were sent.
func (q *txQueue) sync(r *ring, head uint32) (err error) {
	r.head = head
	q.reclaim(r)
	if q.next != head {
		err = q.collect(r)
		if n := q.sock.Transmit(q.descs); n < len(q.descs) {
			// Collect looked for the room.
			panic(fmt.Sprintf("netmap: tx ring took %d of %d frames", n, len(q.descs)))
		}
		q.descs = q.descs[:0]
	}
	if kick := q.kick(); kick != nil && err == nil {
		err = kick
	}
	q.reclaim(r)
	return err
}

// collect makes descriptors of whole frames, as many as the socket has room for.
func (q *txQueue) collect(r *ring) (err error) {
	free := q.sock.TxFree()
	for q.next != r.head {
		end, slots, fault := q.frame(r)
		if slots == 0 || slots > free {
			break // the rest of the frame is still to come, or does not fit yet
		}
		if fault != "" {
			err = fmt.Errorf("%s ring, slot %d: %w: %s", r.name, q.next, ErrFrame, fault)
			q.count.Refused++
		}
		for i := q.next; i != end; i = r.next(i) {
			if fault != "" {
				q.sent[i] = true
				continue
			}
			free--
			q.add(r, i)
		}
		if fault == "" {
			q.count.Frames++
		}
		q.next = end
	}
	return err
}

// frame finds the end of the frame that begins at q.next: how many slots it has, 0
// if it is not whole, and what is wrong with it.
func (q *txQueue) frame(r *ring) (end uint32, slots int, fault string) {
	if q.skipping {
		fault = tooMany
	}
	for i := q.next; i != r.head; {
		s := r.slots[i] // read once: it is the program's memory
		slots++
		i = r.next(i)
		switch {
		case s.Flags&NS_INDIRECT != 0:
			fault = "NS_INDIRECT is not here: the payload must be in the slot's buffer"
		case s.Flags&NS_FORWARD != 0:
			fault = "NS_FORWARD is not here: write the frame to the host's ring"
		case int(s.Len) > q.mem.MaxFrame():
			fault = fmt.Sprintf("%d bytes: a slot's buffer sends %d; use NS_MOREFRAG", s.Len, q.mem.MaxFrame())
		case s.Len == 0:
			fault = "it is empty"
		case slots > 1 && !q.sock.MultiBuffer():
			fault = "NS_MOREFRAG: the driver sends no frames of several buffers in zero-copy mode"
		case slots > maxFrags:
			fault = tooMany
		}
		if q.skipping = s.Flags&NS_MOREFRAG != 0; !q.skipping || slots > maxFrags {
			return i, slots, fault
		}
	}
	// The frame is looked at again when there is more of it.
	q.skipping = fault == tooMany
	return 0, 0, ""
}

// maxFrags is how many buffers a frame may have: an skb's (MAX_SKB_FRAGS).
const (
	maxFrags = 17
	tooMany  = "it has more than 17 slots"
)

func (q *txQueue) add(r *ring, i uint32) {
	s, buf := r.slots[i], r.bufs[i]
	d := xsk.Desc{Addr: uint64(buf)<<q.mem.shift + headroom, Len: uint32(min(int(s.Len), q.mem.MaxFrame()))}
	if s.Flags&NS_MOREFRAG != 0 {
		d.Options = xsk.DescMore
	}
	q.descs = append(q.descs, d)
	q.sent[i] = false
	q.before[i], q.slotOf[buf] = q.slotOf[buf], i+1
	q.count.Bytes += uint64(d.Len)
}

// kick has the kernel send, as much as it takes. Before Linux 6.17 a kernel that has used
// its budget up does not say what it has sent: so it is asked as often as the budget
// demands, whatever TxPending says.
func (q *txQueue) kick() error {
	for kicks := q.sock.TxPending()/max(q.sock.TxBudget(), 1) + 1; kicks > 0 && q.sock.TxPending() > 0; kicks-- {
		if !q.sock.TxNeedsWakeup() {
			return nil
		}
		if err := q.sock.KickTx(); err != nil && err != xsk.ErrAgain {
			return fmt.Errorf("%w: %w", ErrDown, err)
		} else if err == nil || q.sock.ZeroCopy() {
			return nil
		}
	}
	return nil
}

// reclaim gives slots back that were sent.
func (q *txQueue) reclaim(r *ring) {
	for {
		n := q.sock.Complete(q.addrs)
		for _, a := range q.addrs[:n] {
			buf := a >> q.mem.shift
			if at := q.slotOf[buf]; at > 0 {
				q.slotOf[buf] = q.before[at-1]
				q.sent[at-1] = true
			}
		}
		if n < len(q.addrs) {
			break
		}
	}
	for q.done != q.next && q.sent[q.done] {
		q.done = r.next(q.done)
	}
	r.freeUpTo(q.done)
}

// waiting says whether slots were not handed to the kernel yet.
func (q *txQueue) unsent(r *ring) bool { return q.next != r.head || q.sock.TxPending() > 0 }

// end leaves the buffers that are still with the kernel to the queue.
func (q *txQueue) end(r *ring) {
	r.settle()
	q.reclaim(r)
	if len(r.slots) == 0 {
		return
	}
	var mine []uint32
	for i, b := range r.bufs {
		if q.slotOf[b] == 0 {
			mine = append(mine, r.bufs[i])
		}
	}
	q.mem.give(mine, q.owner)
}

func (q *txQueue) stats() (TxStats, error) {
	s := q.count
	k, err := q.sock.Stats()
	if err != nil {
		return s, err
	}
	s.Invalid = k.TxInvalidDescs
	return s, nil
}
