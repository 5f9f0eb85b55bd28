package ringnet

import (
	"sync"
	"time"
)

// deadline is the deadline of one direction. Its lock is the direction's, which the
// caller of its methods holds.
type deadline struct {
	mu    *sync.Mutex // that lock
	fire  func()      // called when it has passed
	at    time.Time   // zero: none
	timer *time.Timer
	due   time.Time // when the timer fires; zero: it does not
	done  bool      // for good
}

// passed says whether the deadline is over.
func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// set sets the deadline. A timer that is on its way already is left alone when it comes no
// later than the new deadline, so that who sets one for each request starts few.
func (d *deadline) set(t time.Time) {
	if d.done {
		return
	}
	if d.at = t; t.IsZero() {
		return
	}
	if d.passed() {
		d.fire()
		return
	}
	if !d.due.IsZero() && !d.due.After(t) {
		return
	}
	d.due = t
	wait := time.Until(t)
	if d.timer == nil {
		d.timer = time.AfterFunc(wait, d.expire)
	} else {
		d.timer.Reset(wait)
	}
}

func (d *deadline) expire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.due = time.Time{}
	switch {
	case d.done || d.at.IsZero():
	case d.passed():
		d.fire()
	default:
		d.due = d.at
		d.timer.Reset(time.Until(d.at))
	}
}

// stop ends it for good.
func (d *deadline) stop() {
	d.done = true
	if d.timer != nil {
		d.timer.Stop()
	}
}
