package netmap

import (
	"github.com/pastenet/paste/xsk"
)

// rxQueue fills a ring with what a NIC's queue receives.
type rxQueue struct {
	*queue
	descs []xsk.Desc
	back  []uint32
	count RxStats
}

// sync gives the kernel the buffers of the slots up to head, and the program what
// was received.
func (q *rxQueue) sync(r *ring, head uint32) error {
	if r.head != head {
		q.back = q.back[:0]
		for ; r.head != head; r.head = r.next(r.head) {
			q.back = append(q.back, r.bufs[r.head])
		}
		// There is room: no more are on their way than the ring has slots.
		q.posted += q.sock.FillFrames(q.back)
	}
	n := q.sock.Receive(q.descs[:r.room()])
	for i := range q.descs[:n] {
		d := &q.descs[i]
		buf := uint32(d.Addr >> q.mem.shift)
		if off := int(d.Addr) & (1<<q.mem.shift - 1); off != headroom {
			q.move(buf, off, int(d.Len))
		}
		flags := uint16(0)
		if d.Options&xsk.DescMore != 0 {
			flags = NS_MOREFRAG
		} else {
			q.count.Frames++
		}
		q.count.Bytes += uint64(d.Len)
		r.fill(buf, int(d.Len), flags)
	}
	q.posted -= n
	if q.sock.FillNeedsWakeup() {
		return q.sock.WakeRx()
	}
	return nil
}

// move brings a frame to the place where netmap's programs look for it: a driver may
// have left more or less room before it.
func (q *rxQueue) move(buf uint32, off, length int) {
	q.count.Moved++
	chunk := q.mem.region[q.mem.buffers+int(buf)<<q.mem.shift:]
	copy(chunk[headroom:headroom+length], chunk[off:off+length])
}

func (q *rxQueue) pending() bool { return q.sock.RxPending() }

// end takes the buffers back that the program has.
func (q *rxQueue) end(r *ring) {
	r.settle()
	q.back = q.back[:0]
	for ; r.head != r.tail; r.head = r.next(r.head) {
		q.back = append(q.back, r.bufs[r.head])
	}
	q.posted += q.sock.FillFrames(q.back)
}

func (q *rxQueue) fd() int { return q.sock.Fd() }

func (q *rxQueue) stats() (RxStats, error) {
	s := q.count
	k, err := q.sock.Stats()
	if err != nil {
		return s, err
	}
	s.DropRingFull = k.RxRingFull
	s.DropNoBuffer, s.DropOther = k.FillRingEmpty, k.RxDropped+k.RxInvalidDescs
	if !q.sock.ZeroCopy() {
		// In copy mode a frame that finds no buffer counts as dropped, too.
		s.DropNoBuffer = min(k.FillRingEmpty, k.RxDropped)
		s.DropOther -= s.DropNoBuffer
	}
	return s, nil
}

func newDescs(slots int) []xsk.Desc { return make([]xsk.Desc, slots) }
