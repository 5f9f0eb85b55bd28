package redisd

import (
	"time"

	"github.com/pastenet/paste/internal/ringserve"
)

// cronEvery is how often what has expired is looked for.
const cronEvery = 100 * time.Millisecond

// waiting is what a connection is waited for, by the loop's clock.
type waiting struct {
	since    time.Duration // of the last command, or progress of the next one
	had      int           // bytes of it then
	deadline time.Duration // once lingering
}

// timer is a loop's clock and the limits that it measures.
type timer struct {
	now         time.Duration // since the loop began, without the time it stood still
	last        time.Time
	every       time.Duration // between two looks at all connections; 0: none
	next        time.Duration // look
	nextCron    time.Duration
	idle, stall time.Duration // <= 0: none
}

func newTimer(c *Config) timer {
	t := timer{stall: c.StallTimeout, idle: c.IdleTimeout, last: time.Now()}
	for _, limit := range []time.Duration{t.stall, t.idle} {
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
	t.now += min(now.Sub(t.last), max(t.every, cronEvery))
	t.last = now
}

// pollTimeout is how long a Poll may sleep.
func (l *loop) pollTimeout() time.Duration {
	l.s.db.Lock()
	defer l.s.db.Unlock()
	limit := time.Duration(-1)
	atMost := func(d time.Duration) {
		if limit < 0 || d < limit {
			limit = max(d, 0)
		}
	}
	switch {
	case l.draining && !l.dismissed, len(l.inbox) > 0:
		return 0
	case len(l.closing) > 0 || len(l.senders) > 0:
		atMost(l.sendTimeout())
	case l.Open > 0 && l.timer.every > 0:
		atMost(l.timer.every)
	}
	if l.waits != 0 {
		atMost(time.Duration(l.waits-time.Now().UnixMilli()) * time.Millisecond)
	}
	if l.id == 0 && !l.s.db.Idle() {
		atMost(l.nextCron - l.timer.now)
	}
	return limit
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
			l.s.stats.TimedOut++
			l.abort(c)
			continue
		}
		if c.waits() || l.ring.TxQueued(c.fd) > 0 {
			c.wait.since = t.now // it is the server that has to go on, or somebody else
			continue
		}
		if l.overdue(c) {
			l.s.stats.TimedOut++
			l.hangUp(c)
		}
	}
	return nil
}

// overdue reports whether c has made the server wait for too long.
func (l *loop) overdue(c *conn) bool {
	t, w := &l.timer, &c.wait
	if c.in == nil {
		w.had = 0
		return t.idle > 0 && t.now-w.since > t.idle
	}
	if n := len(c.in.buf); n-w.had >= ringserve.MinProgress || n < w.had || w.had == 0 {
		w.had, w.since = n, t.now
	}
	return t.stall > 0 && t.now-w.since > t.stall
}

// stalled reports whether the peer has taken too little of the replies that
// wait for it, for too long.
func (l *loop) stalled(c *conn) bool {
	return l.Stalled(c.fd, &c.out.Out, l.timer.now, l.timer.stall)
}
