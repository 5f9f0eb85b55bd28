package netmap

import (
	"fmt"

	"github.com/pastenet/paste/pmem"
)

// keeper has the buffers that a switch's log keeps. Such a buffer, a frame of a
// pool, is sent from where it was received, and stays in its TX slot until that is
// used again: then another frame takes its place. The switch gives its reference up,
// the log has one of its own.
type keeper struct {
	mem   *Memory // of the pool; nil until a buffer was kept
	pool  *pmem.Pool
	kept  []bool // by buffer
	spare []uint32
	unref []uint32 // when the rings know that they have them no more
}

// record tells the log of the frame in some slots.
func (s *Switch) record(m *member, r *ring, head, end uint32) (kept bool, err error) {
	s.pieces = s.pieces[:0]
	for i := head; i != end; i = r.next(i) {
		s.pieces = append(s.pieces, Piece{r.mem, r.slots[i].BufIdx, r.slots[i].Len})
	}
	kept, err = s.opts.Log.Frame(m.number, s.pieces)
	if err != nil || !kept {
		return false, err
	}
	k := &s.keep
	if k.mem == nil {
		k.mem, k.pool, k.kept = r.mem, r.mem.store.(poolStore).pool, make([]bool, len(r.mem.owner))
	}
	for _, p := range s.pieces {
		k.kept[p.Buf] = true
	}
	return true, nil
}

func (k *keeper) has(m *Memory, buf uint32) bool { return m == k.mem && k.kept[buf] }

// exchange moves a slot's buffer into another slot.
func (s *Switch) exchange(m *Memory, rs, ts *Slot) error {
	if err := s.renew(m, ts); err != nil {
		return err
	}
	rs.BufIdx, ts.BufIdx = ts.BufIdx, rs.BufIdx
	rs.Flags |= NS_BUF_CHANGED
	ts.Flags |= NS_BUF_CHANGED
	return nil
}

// renew puts another buffer into a slot whose own the log has kept.
func (s *Switch) renew(m *Memory, slot *Slot) error {
	k := &s.keep
	if !k.has(m, slot.BufIdx) {
		return nil
	}
	for try := 0; len(k.spare) == 0; try++ {
		k.spare = k.spare[:cap(k.spare)]
		if len(k.spare) == 0 {
			k.spare = make([]uint32, 64)
		}
		k.spare = k.spare[:k.pool.Alloc(k.spare)]
		switch {
		case len(k.spare) > 0:
		case try > 0:
			return fmt.Errorf("switch: the pool has no free frame to receive into: %w", ErrNoMemory)
		default:
			if err := s.opts.Log.MakeRoom(); err != nil {
				return fmt.Errorf("switch: %w", err)
			}
		}
	}
	old := slot.BufIdx
	slot.BufIdx = k.spare[len(k.spare)-1]
	k.spare = k.spare[:len(k.spare)-1]
	slot.Flags |= NS_BUF_CHANGED
	k.kept[old] = false
	k.unref = append(k.unref, old)
	return nil
}

// release gives up references of what is in no slot any more.
func (k *keeper) release() {
	if len(k.unref) > 0 {
		k.pool.UnrefAll(k.unref)
		k.unref = k.unref[:0]
	}
}

// close gives everything back, when the ports are closed.
func (k *keeper) close() {
	if k.pool != nil {
		k.release()
		k.pool.UnrefAll(k.spare)
		k.spare = nil
	}
}
