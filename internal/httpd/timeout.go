package httpd

import (
	"time"

	"github.com/pastenet/paste/internal/ringserve"
)

// part is what a connection is waiting for the peer to send.
type part uint8

const (
	partHeader part = iota // the rest of a header, or the first request
	partBody
	partIdle // another request
)

// waiting is what a connection is waited for, by the loop's clock.
type waiting struct {
	part     part
	since    time.Duration // of that, or of the last progress
	began    time.Duration // of that
	bodyMark int64         // of the body, when there was progress
	deadline time.Duration // once lingering
}

// timer is a loop's clock and the limits that it measures.
type timer struct {
	now    time.Duration // since the loop began, without the time it stood still
	last   time.Time
	every  time.Duration    // between two looks at all connections; 0: none
	next   time.Duration    // look
	slept  time.Duration    // at most, in the last Poll
	limits [3]time.Duration // by part; <= 0: none
	stall  time.Duration
	rate   int64 // bytes a second of a body; <= 0: any
}

func newTimer(c *Config) timer {
	t := timer{stall: c.StallTimeout, rate: c.BodyRate, last: time.Now()}
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
	t.now += min(now.Sub(t.last), max(t.every, tick, t.slept))
	t.last = now
}

// pollTimeout is how long a Poll may sleep.
func (l *loop) pollTimeout() time.Duration {
	timeout := l.mostSleep()
	if in := l.nextChore; in >= 0 && (timeout < 0 || in < timeout) {
		timeout = in
	}
	for _, c := range l.parked {
		at := c.reading.beat
		if c.reading.what == readList {
			at = c.reading.until
		}
		if in := max(at-l.timer.now, time.Millisecond); timeout < 0 || in < timeout {
			timeout = in
		}
	}
	l.timer.slept = timeout
	return timeout
}

// mostSleep is how long it may sleep for everything but those who wait for records.
func (l *loop) mostSleep() time.Duration {
	switch {
	case l.draining && !l.dismissed:
		return 0
	case len(l.closing) > 0 || len(l.senders) > 0:
		return l.sendTimeout()
	case l.Open > 0 && l.timer.every > 0:
		return l.timer.every
	}
	return -1
}

// received notes what the input that was just parsed means for c's limits.
func (l *loop) received(c *conn) {
	w := &c.wait
	switch {
	case w.part == partBody && c.got-w.bodyMark >= ringserve.MinProgress:
		w.since, w.bodyMark = l.timer.now, c.got
	case w.part == partIdle && !c.parser.Idle():
		w.part, w.since = partHeader, l.timer.now
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
		if c.sending() || l.ring.TxQueued(c.fd) > 0 {
			c.wait.since = t.now // it is the server that has to go on
			continue
		}
		if !l.overdue(c) {
			continue
		}
		l.n.TimedOut++
		if c.wait.part == partBody || !c.parser.Idle() {
			l.n.Requests++
			if err := l.reply(c, l.replies.timeout); err != nil {
				return err
			}
		}
		l.hangUp(c)
	}
	return nil
}

// overdue reports whether c has made the server wait for too long, or its body
// comes too slowly: after StallTimeout it must have come at the least rate on
// average.
func (l *loop) overdue(c *conn) bool {
	t, w := &l.timer, &c.wait
	if limit := t.limits[w.part]; limit > 0 && t.now-w.since > limit {
		return true
	}
	if w.part != partBody || t.rate <= 0 || t.stall <= 0 {
		return false
	}
	late := (t.now - w.began - t.stall).Seconds()
	return late > 0 && float64(c.got) < late*float64(t.rate)
}

// stalled reports whether the peer has taken too little of the replies that
// wait for it, for too long.
func (l *loop) stalled(c *conn) bool {
	return l.Stalled(c.fd, &c.out.Out, l.timer.now, l.timer.stall)
}

// abort closes c by a reset: nobody reads at the other end, and an orderly end
// would wait for it in the kernel.
func (l *loop) abort(c *conn) {
	ringserve.Reset(c.fd)
	l.kill(c)
}

// expects says what c waits for from now on.
func (l *loop) expects(c *conn, p part) {
	c.wait.part, c.wait.since, c.wait.began, c.wait.bodyMark = p, l.timer.now, l.timer.now, 0
}
