package httpd

import (
	"slices"
	"time"
)

// heartbeat is how often a follower gets a sign of life, so that a client that has
// gone without a word is found.
const heartbeat = 15 * time.Second

// park has a reader wait for records.
func (l *loop) park(c *conn) {
	if c.out.parked {
		return
	}
	c.out.parked = true
	l.parked = append(l.parked, c)
	l.s.waiting.Add(1)
}

// unpark has a reader's answer go on.
func (l *loop) unpark(c *conn) {
	if !c.out.parked {
		return
	}
	c.out.parked = false
	l.parked = slices.DeleteFunc(l.parked, func(p *conn) bool { return p == c })
	l.s.waiting.Add(-1)
}

// follow has the waiting readers look at what was committed, on this ring or
// another one, and ends those that have waited for long enough.
func (l *loop) follow() error {
	if len(l.parked) == 0 {
		return nil
	}
	l.s.lockLog()
	next := l.s.pool.Log().Committed()
	l.s.unlockLog()
	for _, c := range slices.Clone(l.parked) {
		r := c.reading
		if c.phase == dead {
			l.unpark(c)
			continue
		}
		r.over = r.over || c.eof || l.draining
		late := r.what == readList && l.timer.now >= r.until
		if r.what == readEvents && l.timer.now >= r.beat {
			r.beat = l.timer.now + heartbeat
			if err := l.chunk(c, append(l.scratch[:0], ":\n\n"...)); err != nil {
				return err
			}
		}
		if r.next == next && !r.over && !late {
			continue
		}
		l.unpark(c)
		if err := l.moreOfLog(c); err != nil {
			return err
		}
		if err := l.afterReading(c); err != nil {
			return err
		}
	}
	return nil
}

// afterReading looks at what a client has asked for behind an answer that is
// complete now.
func (l *loop) afterReading(c *conn) error {
	if c.sending() || c.phase != serving {
		return nil
	}
	return l.resume(c)
}

// tell wakes the other rings, whose clients may wait for what was committed here.
func (l *loop) tell() {
	if l.s.waiting.Load() == int64(len(l.parked)) {
		return
	}
	for _, other := range l.s.loops {
		if other != nil && other != l {
			other.ring.Wake()
		}
	}
}
