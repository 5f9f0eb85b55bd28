package httpd

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// pieces is input that is kept: the body of a request that is not complete, or
// what came behind a request whose answer is still being sent.
type pieces struct {
	frags []pmem.Fragment
	sums  []uint32 // of frags, if all were copied past the caches
	room  int      // bytes left in the frame of the last fragment, if that is filled by copying
	front int      // bytes in front of the first fragment that nobody needs
}

// budget is what unfinished input may take of the pool, of one loop.
type budget struct {
	// count counts fragments, which are at least as many as frames, until their
	// references have been given up. held is what other loops know of it: never
	// less, and up to heldStep more, as to tell them takes a locked instruction,
	// which waits until the payload that was stored before has left the core.
	count   int
	told    int // held, as this loop knows it
	held    atomic.Int64
	dropped int // of held, to be given up at the end of the batch
	limit   int
	lists   [][]pmem.Fragment // long fragment lists to be used again
}

// used is how many fragments there are in all pieces.
func (b *budget) used() int { return b.count - b.dropped }

// heldStep is how many fragments other loops may count in advance.
const heldStep = 64

// add counts one more fragment.
func (b *budget) add() {
	if b.count++; b.count > b.told {
		b.tell(b.count + heldStep)
	}
}

// release counts those out that were dropped and have been given up.
func (b *budget) release() {
	b.count -= b.dropped
	b.dropped = 0
	b.tell(b.count)
}

func (b *budget) tell(n int) {
	b.told = n
	b.held.Store(int64(n))
}

// keepFrame adds a part of a segment where it was received. ok is false if
// there is no room.
func (l *loop) keepFrame(c *conn, p *pieces, seg *segment, off, n int) (ok bool, err error) {
	if !l.makeWay(c) {
		return false, nil
	}
	if seg.kept {
		l.s.pool.Ref(seg.frame)
	} else {
		seg.frame, err = l.ring.Keep(seg.slot)
		for errors.Is(err, pasteapi.ErrNoBuffers) {
			if found, err := l.findFrames(c); err != nil || !found {
				return false, err
			}
			seg.frame, err = l.ring.Keep(seg.slot)
		}
		if err != nil {
			return false, fmt.Errorf("keep a received buffer: %w", err)
		}
		seg.kept = true
	}
	if len(p.frags) == 0 {
		p.front = off - seg.used
	}
	seg.used = off + n
	l.addFragment(c, p, pmem.Fragment{Frame: seg.frame, Off: uint16(off), Len: uint16(n)})
	p.room = 0
	return true, nil
}

// keepCopy adds a copy of payload, in frames that are filled to the end.
func (l *loop) keepCopy(c *conn, p *pieces, payload []byte) (ok bool, err error) {
	if len(p.sums) > 0 && len(p.sums) == len(p.frags) {
		p.room = 0 // the last frame is keepSummed's
	}
	for len(payload) > 0 {
		if p.room == 0 {
			if !l.makeWay(c) {
				return false, nil
			}
			var frame [1]uint32
			for l.s.pool.Alloc(frame[:]) == 0 {
				if found, err := l.findFrames(c); err != nil || !found {
					return false, err
				}
			}
			off := 0
			if len(p.frags) == 0 && p == &c.body {
				off, p.front = c.headroom, c.headroom
			}
			l.addFragment(c, p, pmem.Fragment{Frame: frame[0], Off: uint16(off)})
			p.room = l.s.pool.FrameSize() - off
		}
		f := &p.frags[len(p.frags)-1]
		n := copy(l.s.pool.Frame(f.Frame)[f.Off+f.Len:], payload)
		f.Len += uint16(n)
		p.room -= n
		payload = payload[n:]
	}
	return true, nil
}

// keepSummed adds a copy of payload, past the caches and with its checksum, in frames
// that are filled to the end: what was copied or read before is in a buffer that is
// warm, and had better stay with the ring.
func (l *loop) keepSummed(c *conn, p *pieces, payload []byte) (ok bool, err error) {
	if len(p.sums) == 0 {
		p.room = 0
	}
	begun := max(len(p.frags)-1, 0) // whose checksum goes on
	for p.room < len(payload) {
		if ok, err := l.addSummed(c, p); !ok || err != nil {
			return false, err
		}
	}
	if _, err := l.s.pool.CopyIn(p.frags[begun:], p.sums[begun:], payload); err != nil {
		return false, err
	}
	p.room -= len(payload)
	return true, nil
}

// addSummed adds a frame for keepSummed.
func (l *loop) addSummed(c *conn, p *pieces) (ok bool, err error) {
	if !l.makeWay(c) {
		return false, nil
	}
	for len(l.stash) == 0 {
		// Many at once: each lock waits for the stores of the payload before it.
		if l.stash = l.stashed[:l.s.pool.Alloc(l.stashed[:])]; len(l.stash) > 0 {
			break
		}
		if found, err := l.findFrames(c); err != nil || !found {
			return false, err
		}
	}
	f := pmem.Fragment{Frame: l.stash[0]} // in this order they are neighbours
	l.stash = l.stash[1:]
	l.addFragment(c, p, f)
	p.sums = append(p.sums, 0)
	p.room += l.s.pool.FrameSize()
	return true, nil
}

// longList is the capacity from which on a fragment list is shared among
// connections instead of staying with one.
const longList = 64

func (l *loop) addFragment(c *conn, p *pieces, f pmem.Fragment) {
	if c.held() == 0 {
		c.heldSince = l.timer.now
	}
	b := &l.budget
	if len(p.frags) == cap(p.frags) && cap(p.frags) < longList && len(b.lists) > 0 {
		n := len(b.lists) - 1
		p.frags = append(b.lists[n], p.frags...)
		b.lists = b.lists[:n]
	}
	p.frags = append(p.frags, f)
	b.add()
}

// dropPieces gives up the frames of pieces, at the end of the batch.
func (l *loop) dropPieces(p *pieces) {
	b := &l.budget
	b.dropped += len(p.frags)
	for _, f := range p.frags {
		l.Drop = append(l.Drop, f.Frame)
	}
	p.room, p.sums = 0, p.sums[:0]
	if cap(p.frags) < longList {
		p.frags = p.frags[:0]
		return
	}
	if len(b.lists) < 16 {
		b.lists = append(b.lists, p.frags[:0])
	}
	p.frags = nil
}

// held is how many fragments of unfinished input a connection has.
func (c *conn) held() int { return len(c.body.frags) + len(c.late.frags) }

// makeWay makes room in the budget for a fragment of c. It reports whether
// there is room.
func (l *loop) makeWay(c *conn) bool {
	for l.budget.used() >= l.budget.limit {
		if !l.evict(c) {
			return false
		}
	}
	return true
}

// findFrames frees frames when the pool has none, and reports whether it could.
// Nothing that was acknowledged is given up for input that is not complete.
func (l *loop) findFrames(c *conn) (bool, error) {
	if l.dropFrames() {
		return true, nil
	}
	if l.handler != nil {
		if made, err := l.handler.MakeRoom(); made || err != nil {
			return made, err
		}
	}
	if l.evict(c) {
		return true, nil
	}
	l.Warn("pool is full", "free_frames", l.s.pool.Free(), "held_by_unfinished_requests", l.budget.used())
	return false, nil
}

// cost is what a connection's unfinished input has taken: frames times the time
// for which they were held.
func (l *loop) cost(c *conn) time.Duration {
	return time.Duration(c.held()) * (l.timer.now - c.heldSince + time.Second)
}

// evict takes the frames of the unfinished input that has cost the most, unless
// that is c's; nil is nobody's. It reports whether it did: so the slowest and
// largest lose first, and whoever is quick or small always finds room.
func (l *loop) evict(c *conn) bool {
	victim, most := (*conn)(nil), time.Duration(0)
	if c != nil {
		most = l.cost(c)
	}
	for _, o := range l.conns {
		if o != nil && o != c && o.held() > 0 && l.cost(o) > most {
			victim, most = o, l.cost(o)
		}
	}
	if victim == nil {
		return false
	}
	l.n.Evicted++
	if len(victim.late.frags) > 0 {
		l.abort(victim) // its requests cannot be answered any more
	} else {
		victim.status = stFull
		l.dropPieces(&victim.body)
	}
	l.dropFrames()
	return true
}
