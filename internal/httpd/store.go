package httpd

import (
	"errors"

	"github.com/pastenet/paste/pmem"
)

// collect takes a piece of a body: payload, at byte off of the segment's
// frame; last says that the body ends with it.
func (l *loop) collect(c *conn, seg *segment, off int, payload []byte, last bool) error {
	c.got += int64(len(payload))
	if c.got > l.s.cfg.BodyLimit {
		return l.tooLarge(c)
	}
	if c.key != nil {
		c.key.asked.Write(payload)
	}
	if c.status != stStore || l.s.cfg.Persist == PersistNone || c.key != nil && c.key.known {
		return nil
	}
	// What is copied anyway, the log copies past the caches. So it does with a
	// payload that was just copied or read, which is in the cache still,
	// in a buffer that had better go back to the ring: to keep it means to fetch
	// another one that is in no cache.
	if last && len(c.body.frags) == 0 && l.handler == nil &&
		(l.s.cfg.Persist == PersistCopy || seg.copied) {
		c.whole = payload
		return nil
	}
	if len(c.body.frags) >= l.s.maxFrames && c.body.room < len(payload) {
		return l.tooLarge(c)
	}
	var ok bool
	var err error
	if l.passesBy(c, seg, payload) {
		ok, err = l.keepSummed(c, &c.body, payload)
	} else if seg.run || l.copies(c, payload, last) {
		ok, err = l.keepCopy(c, &c.body, payload)
	} else {
		ok, err = l.keepFrame(c, &c.body, seg, off, len(payload))
	}
	if err != nil {
		return err
	}
	if !ok {
		// The rest of the body is still read, so that the answer finds a
		// client that listens.
		c.status = stFull
		l.n.Evicted++
		l.dropBody(c)
	}
	return nil
}

// passesBy says whether a piece is copied past the caches. A few may be short, but a
// body that comes by the byte is not stored by the byte.
func (l *loop) passesBy(c *conn, seg *segment, payload []byte) bool {
	b := &c.body
	if l.handler != nil || !seg.copied || len(b.sums) != len(b.frags) || len(b.frags)+l.framesLeft(c)+3 > l.s.maxFrames {
		return false
	}
	const short = 8 // frames more than the body so far would fill
	return len(payload) >= l.s.pool.FrameSize()/4 || len(b.frags) < int(c.got)/l.s.pool.FrameSize()+short
}

// copies decides whether a piece is copied instead of kept where it lies: when
// asked for, when the frame would be mostly empty although the body has more
// pieces to share one with, and when the body could not be held otherwise.
func (l *loop) copies(c *conn, payload []byte, last bool) bool {
	if l.s.cfg.Persist == PersistCopy {
		return true
	}
	if last && len(c.body.frags) == 0 {
		return false
	}
	size := l.s.pool.FrameSize()
	return len(payload) < size/4 || len(c.body.frags)+l.framesLeft(c)+3 > l.s.maxFrames
}

// framesLeft is how many full frames the rest of a body takes; of one whose
// length is not known, as many as it may.
func (l *loop) framesLeft(c *conn) int {
	total := c.parser.Request.ContentLength
	if total < 0 {
		total = l.s.cfg.BodyLimit
	}
	return int((total - c.got) / int64(l.s.pool.FrameSize()))
}

// dropBody gives up the body in progress.
func (l *loop) dropBody(c *conn) {
	l.dropPieces(&c.body)
	c.whole = nil
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
	if c.key != nil && c.key.known {
		l.n.Repeated++
		return seq, true, nil
	}
	l.n.Stored++
	l.n.StoredBytes += uint64(c.got)
	return seq, true, nil
}

func (l *loop) append(c *conn) (uint64, error) {
	l.s.lockLog()
	defer l.s.unlockLog()
	if c.key != nil {
		return l.appendOnce(c)
	}
	return l.appendBody(c)
}

// appendBody appends the body as a record.
func (l *loop) appendBody(c *conn) (seq uint64, err error) {
	log := l.s.pool.Log()
	switch {
	case c.whole != nil:
		seq, err = log.AppendCopy(c.whole)
	case len(c.body.sums) > 0 && len(c.body.sums) == len(c.body.frags):
		seq, err = log.AppendSummed(c.body.frags, c.body.sums, false)
	default:
		seq, err = log.Append(c.body.frags, true)
	}
	if err == nil {
		l.s.retain.stored(c.got)
	}
	return seq, err
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
	if l.s.kept != nil {
		if err := l.s.kept.Commit(); err != nil { // before the log's: see package intake
			return err
		}
	}
	if err := l.s.pool.Log().Commit(); err != nil {
		return err
	}
	l.staged = false
	l.n.Commits++
	if len(l.s.loops) > 1 {
		l.tell()
	}
	return nil
}

// makeRoom makes room for a body that is complete.
func (l *loop) makeRoom() (bool, error) {
	if l.dropFrames() || l.s.pool.Free() == 0 && l.evict(nil) {
		return true, nil
	}
	if l.s.cfg.OnFull != Wrap {
		l.Warn("pool or log is full: answering 507", "records", l.s.pool.Log().Len(), "free_frames", l.s.pool.Free())
		return false, nil
	}
	if err := l.commit(); err != nil {
		return false, err
	}
	return l.s.wrap()
}

// keepReserve drops old records when the log has grown into what unfinished
// bodies may take: they find it free, and no record ever goes for one of them.
func (l *loop) keepReserve() error {
	if l.s.cfg.OnFull != Wrap || l.s.cfg.Persist == PersistNone || l.handler != nil {
		return nil
	}
	for l.s.pool.Free() < l.s.reserve-l.s.held() {
		if made, err := l.s.wrap(); err != nil || !made {
			return err
		}
	}
	return nil
}

// held is how many frames unfinished input has, on all rings.
func (s *Server) held() (n int) {
	for _, l := range s.loops {
		if l != nil {
			n += int(l.budget.held.Load())
		}
	}
	return n
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
