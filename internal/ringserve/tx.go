package ringserve

import (
	"errors"
	"fmt"
	"time"

	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

var (
	errTxFull = errors.New("no room in the tx ring after a push")
	errNoHome = errors.New("the buffer of a tx slot is lost")
)

// MinProgress is how many bytes must come, or of answers be taken, to count as
// progress: a byte now and then does not.
const MinProgress = 4096

// Tx writes answers into the TX ring.
type Tx struct {
	// Syncs is how often the ring was pushed; whoever calls Poll counts that, too.
	Syncs uint64
	// Drop are frames whose reference is given up when the owner comes to it.
	Drop []uint32

	ring   Ring
	tx     *pasteapi.NetmapRing
	pool   *pmem.Pool
	commit func() error
	lent   []uint32 // by slot: the frame that is sent from it and is not the ring's own, or 0
	home   []uint32 // buffers that such frames have displaced
}

// Out is what a Tx knows of one connection.
type Out struct {
	Written int64 // bytes of all answers

	sync    uint64 // Tx.Syncs when the last slot was written
	slot    uint32 // that slot
	pushed  int64  // bytes of the answers before those of the last sync
	taken   int64  // bytes that the socket took, when there was progress, or no
	takenAt time.Duration
}

// NewTx returns a Tx for a ring. commit makes durable what answers speak of, before
// these leave in the middle of a batch.
func NewTx(r Ring, pool *pmem.Pool, commit func() error) Tx {
	return Tx{Syncs: 1, ring: r, tx: r.TX(), pool: pool, commit: commit, lent: make([]uint32, r.TX().NumSlots)}
}

// Begin notes a connection's first moment.
func (o *Out) Begin(now time.Duration) { o.takenAt = now }

// Waits reports whether a slot of the connection waits for the next push.
func (t *Tx) Waits(o *Out) bool { return o.sync == t.Syncs }

// Queued is how many bytes wait to be sent to a connection.
func (t *Tx) Queued(fd int, o *Out) int {
	n := t.ring.TxQueued(fd)
	if t.Waits(o) {
		n += int(o.Written - o.pushed)
	}
	return n
}

// Stalled reports whether the peer has taken too little of the answers that wait for
// it, for longer than limit; 0 or less: there is none.
func (t *Tx) Stalled(fd int, o *Out, now, limit time.Duration) bool {
	queued := t.ring.TxQueued(fd)
	taken := o.Written - int64(queued)
	if t.Waits(o) {
		taken = o.pushed - int64(queued) // later answers are not the ring's yet
	}
	if queued == 0 || taken-o.taken >= MinProgress {
		o.taken, o.takenAt = taken, now
	}
	return limit > 0 && now-o.takenAt > limit
}

// Write writes b into slots. They leave with the next push.
func (t *Tx) Write(fd int, o *Out, b []byte) error {
	// Another answer of this batch to the same client is continued.
	if t.Waits(o) && t.tx.Next(o.slot) == t.tx.Head && t.lent[o.slot] == 0 {
		slot := t.tx.Slot(o.slot)
		n := copy(t.tx.Buf(slot)[slot.Len:], b)
		slot.Len += uint16(n)
		o.Written += int64(n)
		b = b[n:]
	}
	for len(b) > 0 {
		i, err := t.freeSlot()
		if err != nil {
			return err
		}
		if err := t.reclaim(i); err != nil {
			return err
		}
		n := copy(t.tx.Buf(t.tx.Slot(i)), b)
		t.enqueue(fd, o, i, 0, n)
		b = b[n:]
	}
	return nil
}

// WriteFrame sends a fragment from where it lies, without copying, unless it begins
// so far back in its frame that a slot cannot say so. The caller's reference to the
// frame is taken over; nothing in the fragment may change as long as the frame has
// references.
func (t *Tx) WriteFrame(fd int, o *Out, f pmem.Fragment) error {
	if f.Off > pasteapi.MaxDoff {
		err := t.Write(fd, o, t.pool.Frame(f.Frame)[f.Off:f.Off+f.Len])
		t.Drop = append(t.Drop, f.Frame)
		return err
	}
	i, err := t.freeSlot()
	if err != nil {
		return err
	}
	slot := t.tx.Slot(i)
	if t.lent[i] != 0 && slot.BufIdx == t.lent[i] {
		t.Drop = append(t.Drop, slot.BufIdx)
	} else {
		t.home = append(t.home, slot.BufIdx)
	}
	t.lent[i] = f.Frame
	slot.BufIdx = f.Frame
	slot.Flags |= pasteapi.NS_BUF_CHANGED
	t.enqueue(fd, o, i, int(f.Off), int(f.Len))
	return nil
}

// freeSlot returns the slot that is to be written next, and makes room if there is
// none.
func (t *Tx) freeSlot() (uint32, error) {
	if t.tx.Space() == 0 {
		if err := t.Push(); err != nil {
			return 0, err
		}
		if t.tx.Space() == 0 {
			return 0, errTxFull
		}
	}
	return t.tx.Head, nil
}

// enqueue sends n bytes of the buffer in freeSlot's slot i, from doff on, with
// the next push.
func (t *Tx) enqueue(fd int, o *Out, i uint32, doff, n int) {
	slot := t.tx.Slot(i)
	slot.SetFd(fd)
	slot.SetDoff(doff)
	slot.Len = uint16(doff + n)
	t.tx.Head = t.tx.Next(i)
	t.tx.Cur = t.tx.Head
	if !t.Waits(o) {
		o.pushed = o.Written
	}
	o.sync, o.slot = t.Syncs, i
	o.Written += int64(n)
}

// reclaim gives slot i a buffer that may be written, if the last one who
// used it sent a frame of a stored value. That frame is not touched by the ring
// any more: what a slow peer had not taken has moved to a queue.
func (t *Tx) reclaim(i uint32) error {
	f := t.lent[i]
	if f == 0 {
		return nil
	}
	slot := t.tx.Slot(i)
	if slot.BufIdx == f {
		n := len(t.home)
		if n == 0 {
			return errNoHome
		}
		slot.BufIdx = t.home[n-1]
		slot.Flags |= pasteapi.NS_BUF_CHANGED
		t.home = t.home[:n-1]
		t.Drop = append(t.Drop, f)
	}
	t.lent[i] = 0
	return nil
}

// Push sends what is in the ring, in the middle of a batch.
func (t *Tx) Push() error {
	if err := t.commit(); err != nil {
		return err
	}
	err := t.ring.TxSync()
	t.Syncs++
	if err != nil {
		return fmt.Errorf("push replies: %w", err)
	}
	return nil
}

// Trim gives back buffers of slots that got others meanwhile.
func (t *Tx) Trim() {
	if n := int(t.tx.NumSlots); len(t.home) > n {
		t.Drop = append(t.Drop, t.home[n:]...)
		t.home = t.home[:n]
	}
}

// Close gives back the buffers of slots that have others: those are the ring's to
// give up.
func (t *Tx) Close() {
	t.Drop = append(t.Drop, t.home...)
	t.home = nil
}
