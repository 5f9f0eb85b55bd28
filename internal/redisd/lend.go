package redisd

import (
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// sendFrame sends a fragment from where it lies, without copying, unless it begins
// so far back in its frame that a slot cannot say so. The caller's reference to the
// frame is taken over.
func (l *loop) sendFrame(c *conn, f pmem.Fragment) error {
	if f.Off > pasteapi.MaxDoff {
		err := l.write(c, l.s.db.Pool().Frame(f.Frame)[f.Off:f.Off+f.Len])
		l.drop = append(l.drop, f.Frame)
		return err
	}
	i, err := l.freeSlot()
	if err != nil {
		return err
	}
	slot := l.tx.Slot(i)
	if l.lent[i] != 0 && slot.BufIdx == l.lent[i] {
		l.drop = append(l.drop, slot.BufIdx)
	} else {
		l.home = append(l.home, slot.BufIdx)
	}
	l.lent[i] = f.Frame
	slot.BufIdx = f.Frame
	slot.Flags |= pasteapi.NS_BUF_CHANGED
	l.enqueue(c, i, int(f.Off), int(f.Len))
	return nil
}

// reclaim gives TX slot i a buffer that may be written, if the last one who
// used it sent a frame of a stored value. That frame is not touched by the ring
// any more: what a slow peer had not taken has moved to a queue.
func (l *loop) reclaim(i uint32) error {
	f := l.lent[i]
	if f == 0 {
		return nil
	}
	slot := l.tx.Slot(i)
	if slot.BufIdx == f {
		n := len(l.home)
		if n == 0 {
			return errNoHome
		}
		slot.BufIdx = l.home[n-1]
		slot.Flags |= pasteapi.NS_BUF_CHANGED
		l.home = l.home[:n-1]
		l.drop = append(l.drop, f)
	}
	l.lent[i] = 0
	return nil
}

// trimHome gives back buffers of TX slots that got others meanwhile.
func (l *loop) trimHome() {
	if n := int(l.tx.NumSlots); len(l.home) > n {
		l.drop = append(l.drop, l.home[n:]...)
		l.home = l.home[:n]
	}
}

// dropFrames gives up the references that are not needed any more.
func (l *loop) dropFrames() {
	if len(l.drop) > 0 {
		l.s.db.Pool().UnrefAll(l.drop)
		l.drop = l.drop[:0]
	}
}
