package netmap

// rxSide is where the frames of an RX ring come from. It belongs to the port's
// goroutine.
type rxSide interface {
	// sync takes the buffers of the slots up to head back, and fills slots from
	// the ring's tail on.
	sync(r *ring, head uint32) error
	// pending says, without a system call, that sync would find something.
	pending() bool
	// fd is readable when sync would find something; -1: it never does.
	fd() int
	// end takes back what the program has.
	end(r *ring)
	stats() (RxStats, error)
}

// txSide is where the frames of a TX ring go.
type txSide interface {
	// sync sends the slots up to head, as far as they are taken, and moves the
	// ring's tail over those that were sent.
	sync(r *ring, head uint32) error
	// unsent says that slots wait to be taken.
	unsent(r *ring) bool
	end(r *ring)
	stats() (TxStats, error)
}

// freeUpTo gives the program all slots of a TX ring up to slot i, the first that is
// not sent, but one.
func (r *ring) freeUpTo(i uint32) {
	if r.tail = i; r.tail == 0 {
		r.tail = uint32(len(r.slots))
	}
	r.tail--
}

// nullSide is the rings of a port that is no device: nothing comes, and what is
// sent is gone.
type nullSide struct{ count TxStats }

type nullRx struct{}

func (nullRx) sync(r *ring, head uint32) error { r.head = head; return nil }
func (nullRx) pending() bool                   { return false }
func (nullRx) fd() int                         { return -1 }
func (nullRx) end(*ring)                       {}
func (nullRx) stats() (RxStats, error)         { return RxStats{}, nil }

func (q *nullSide) sync(r *ring, head uint32) error {
	for ; r.head != head; r.head = r.next(r.head) {
		s := r.slots[r.head]
		q.count.Bytes += uint64(s.Len)
		if s.Flags&NS_MOREFRAG == 0 {
			q.count.Frames++
		}
	}
	r.freeUpTo(head)
	return nil
}

func (q *nullSide) unsent(*ring) bool       { return false }
func (q *nullSide) end(r *ring)             { r.settle() }
func (q *nullSide) stats() (TxStats, error) { return q.count, nil }
