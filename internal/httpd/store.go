package httpd

import (
	"errors"
	"fmt"

	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// collect takes a piece of a body: payload, at byte off of the segment's
// frame; last says that the body ends with it.
func (l *loop) collect(c *conn, seg *segment, off int, payload []byte, last bool) error {
	c.body += int64(len(payload))
	if c.body > l.s.cfg.BodyLimit {
		return l.tooLarge(c)
	}
	if c.status != stStore || l.s.cfg.Persist == PersistNone {
		return nil
	}
	// What is copied anyway, the log copies past the caches. So it does with a
	// payload that the copy path has just brought, which is in the cache still,
	// in a buffer that had better go back to the ring: to keep it means to fetch
	// another one that is in no cache.
	if last && len(c.frags) == 0 && l.handler == nil &&
		(l.s.cfg.Persist == PersistCopy || seg.slot.Flags&pasteapi.NS_COPIED != 0) {
		c.whole = payload
		return nil
	}
	var ok bool
	var err error
	if l.copies(c, payload, last) {
		ok, err = l.collectCopy(c, payload)
	} else {
		ok, err = l.collectFrame(c, seg, off, len(payload))
	}
	if err != nil {
		return err
	}
	if !ok {
		// The rest of the body is still read, so that the answer finds a
		// client that listens.
		c.status = stFull
		l.dropBody(c)
	}
	return nil
}

// copies decides whether a piece is copied instead of kept where it lies: when
// asked for, when the frame would be mostly empty although the body has more
// pieces to share one with, and when the body holds so many frames that it
// should be packed.
func (l *loop) copies(c *conn, payload []byte, last bool) bool {
	if l.s.cfg.Persist == PersistCopy {
		return true
	}
	if last && len(c.frags) == 0 {
		return false
	}
	return len(payload) < l.s.pool.FrameSize()/4 || len(c.frags) > l.maxFrames/2
}

// collectFrame adds a piece where it was received. ok is false if there is no
// room.
func (l *loop) collectFrame(c *conn, seg *segment, off, n int) (ok bool, err error) {
	if len(c.frags) >= l.maxFrames {
		return false, nil
	}
	if seg.kept {
		l.s.pool.Ref(seg.frame)
	} else {
		seg.frame, err = l.ring.Keep(seg.slot)
		for errors.Is(err, pasteapi.ErrNoBuffers) {
			if made, err := l.makeRoom(); err != nil || !made {
				return false, err
			}
			seg.frame, err = l.ring.Keep(seg.slot)
		}
		if err != nil {
			return false, fmt.Errorf("keep a received buffer: %w", err)
		}
		seg.kept = true
	}
	if len(c.frags) == 0 {
		c.front = off - seg.used
	}
	seg.used = off + n
	l.addFragment(c, pmem.Fragment{Frame: seg.frame, Off: uint16(off), Len: uint16(n)})
	c.room = 0
	return true, nil
}

// collectCopy adds a copy of a piece, in frames that are filled to the end.
func (l *loop) collectCopy(c *conn, payload []byte) (ok bool, err error) {
	for len(payload) > 0 {
		if c.room == 0 {
			if len(c.frags) >= l.maxFrames {
				return false, nil
			}
			var frame [1]uint32
			for l.s.pool.Alloc(frame[:]) == 0 {
				if made, err := l.makeRoom(); err != nil || !made {
					return false, err
				}
			}
			off := 0
			if len(c.frags) == 0 {
				off, c.front = c.headroom, c.headroom
			}
			l.addFragment(c, pmem.Fragment{Frame: frame[0], Off: uint16(off)})
			c.room = l.s.pool.FrameSize() - off
		}
		f := &c.frags[len(c.frags)-1]
		n := copy(l.s.pool.Frame(f.Frame)[f.Off+f.Len:], payload)
		f.Len += uint16(n)
		c.room -= n
		payload = payload[n:]
	}
	return true, nil
}

// longList is the capacity from which on a fragment list is shared among
// connections instead of staying with one.
const longList = 64

func (l *loop) addFragment(c *conn, f pmem.Fragment) {
	if len(c.frags) == cap(c.frags) && cap(c.frags) < longList && len(l.lists) > 0 {
		n := len(l.lists) - 1
		c.frags = append(l.lists[n], c.frags...)
		l.lists = l.lists[:n]
	}
	c.frags = append(c.frags, f)
}

// dropBody gives up the frames of the body in progress, at the end of the
// batch.
func (l *loop) dropBody(c *conn) {
	for _, f := range c.frags {
		l.drop = append(l.drop, f.Frame)
	}
	c.room, c.whole = 0, nil
	if cap(c.frags) < longList {
		c.frags = c.frags[:0]
		return
	}
	if len(l.lists) < 16 {
		l.lists = append(l.lists, c.frags[:0])
	}
	c.frags = nil
}

// store appends the body of a complete request to the log. stored is false,
// without an error, when there is no room for it.
func (l *loop) store(c *conn) (seq uint64, stored bool, err error) {
	if l.s.cfg.Persist == PersistNone {
		return 0, false, nil
	}
	seq, err = l.append(c)
	for errors.Is(err, pmem.ErrFull) {
		made, roomErr := l.makeRoom()
		if roomErr != nil {
			err = roomErr
		}
		if !made {
			break
		}
		seq, err = l.append(c)
	}
	l.dropBody(c)
	switch {
	case errors.Is(err, pmem.ErrFull):
		l.n.Full++
		return 0, false, nil
	case err != nil:
		return 0, false, err
	}
	l.staged = true
	l.n.Stored++
	l.n.StoredBytes += uint64(c.body)
	return seq, true, nil
}

func (l *loop) append(c *conn) (uint64, error) {
	l.s.lockLog()
	defer l.s.unlockLog()
	if c.whole != nil {
		return l.s.pool.Log().AppendCopy(c.whole)
	}
	return l.s.pool.Log().Append(c.frags, true)
}

// commit makes appended records durable. Until then no reply may be pushed.
func (l *loop) commit() error {
	if l.handler != nil {
		return l.handler.Commit()
	}
	if !l.staged {
		return nil
	}
	l.s.lockLog()
	defer l.s.unlockLog()
	if err := l.s.pool.Log().Commit(); err != nil {
		return err
	}
	l.staged = false
	l.n.Commits++
	return nil
}

// makeRoom drops the older half of the log if the server may do that.
func (l *loop) makeRoom() (bool, error) {
	if l.handler != nil {
		l.dropFrames()
		return l.handler.MakeRoom()
	}
	if l.s.cfg.OnFull != Wrap {
		l.warn("pool or log is full: answering 507", "records", l.s.pool.Log().Len(), "free_frames", l.s.pool.Free())
		return false, nil
	}
	if err := l.commit(); err != nil {
		return false, err
	}
	l.dropFrames()
	l.s.lockLog()
	defer l.s.unlockLog()
	log := l.s.pool.Log()
	n := uint64(log.Len())
	if n == 0 {
		return false, nil
	}
	if err := log.Truncate(log.Head() + (n-1)/2); err != nil {
		return false, err
	}
	return true, nil
}

// lockLog and unlockLog cost nothing when there is only one writer.
func (s *Server) lockLog() {
	if len(s.loops) > 1 {
		s.logMu.Lock()
	}
}

func (s *Server) unlockLog() {
	if len(s.loops) > 1 {
		s.logMu.Unlock()
	}
}
