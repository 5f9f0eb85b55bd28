package httpd

import (
	"time"

	"golang.org/x/sys/unix"
)

// part is what a connection is waiting for the peer to send.
type part uint8

const (
	partHeader part = iota // the rest of a header, or the first request
	partBody
	partIdle // another request
)

// minProgress is how many bytes of a body must come, or of replies be taken, to
// count as progress: a byte now and then does not.
const minProgress = 4096

// timer is a loop's clock and the limits that it measures.
type timer struct {
	now    time.Duration // since the loop began, without the time it stood still
	last   time.Time
	every  time.Duration    // between two looks at all connections; 0: none
	next   time.Duration    // look
	limits [3]time.Duration // by part; <= 0: none
	stall  time.Duration
}

func newTimer(c *Config) timer {
	t := timer{stall: c.StallTimeout, last: time.Now()}
	t.limits = [3]time.Duration{partHeader: c.HeaderTimeout, partBody: c.StallTimeout, partIdle: c.IdleTimeout}
	for _, limit := range t.limits {
		if limit > 0 && (t.every == 0 || limit < t.every) {
			t.every = limit
		}
	}
	if t.every > 0 {
		t.every = min(max(t.every/4, time.Millisecond), time.Second)
	}
	return t
}

// advance sets the clock after a Poll. A step is at most as long as the
// longest sleep of a loop that has connections: should the machine or the
// process stand still, no client pays for that.
func (t *timer) advance() {
	now := time.Now()
	t.now += min(now.Sub(t.last), max(t.every, tick))
	t.last = now
}

// pollTimeout is how long a Poll may sleep.
func (l *loop) pollTimeout() time.Duration {
	switch {
	case l.draining && !l.dismissed:
		return 0
	case len(l.closing) > 0:
		return l.closingTimeout()
	case l.open > 0 && l.timer.every > 0:
		return l.timer.every
	}
	return -1
}

// received notes what the input that was just parsed means for c's limits.
func (l *loop) received(c *conn) {
	switch {
	case c.part == partBody && c.body-c.bodyMark >= minProgress:
		c.since, c.bodyMark = l.timer.now, c.body
	case c.part == partIdle && !c.parser.Idle():
		c.part, c.since = partHeader, l.timer.now
	}
}

// expire ends the connections that keep the server waiting.
func (l *loop) expire() error {
	t := &l.timer
	if t.every == 0 || t.now < t.next {
		return nil
	}
	t.next = t.now + t.every
	for _, c := range l.conns {
		if c == nil || c.phase != serving {
			continue
		}
		if l.stalled(c) {
			l.n.TimedOut++
			l.abort(c)
			continue
		}
		if l.ring.TxQueued(c.fd) > 0 {
			c.since = t.now // it is the server that has to go on
			continue
		}
		if limit := t.limits[c.part]; limit <= 0 || t.now-c.since <= limit {
			continue
		}
		l.n.TimedOut++
		if c.part == partBody || !c.parser.Idle() {
			l.n.Requests++
			if err := l.reply(c, l.replies.timeout); err != nil {
				return err
			}
		}
		l.hangUp(c)
	}
	return nil
}

// stalled reports whether the peer has taken too little of the replies that
// wait for it, for too long.
func (l *loop) stalled(c *conn) bool {
	t := &l.timer
	queued := l.ring.TxQueued(c.fd)
	taken := c.written - int64(queued)
	if c.sync == l.syncs {
		taken = c.pushed - int64(queued) // later replies are not the ring's yet
	}
	if queued == 0 || taken-c.taken >= minProgress {
		c.taken, c.takenAt = taken, t.now
	}
	return t.stall > 0 && t.now-c.takenAt > t.stall
}

// abort closes c by a reset: nobody reads at the other end, and an orderly end
// would wait for it in the kernel.
func (l *loop) abort(c *conn) {
	// It can only fail for a descriptor that is no socket.
	_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	l.kill(c)
}

// expects says what c waits for from now on.
func (l *loop) expects(c *conn, p part) {
	c.part, c.since, c.bodyMark = p, l.timer.now, 0
}
