package loadgen

import (
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
)

// maxRate is more than any generator of one thread can send, in requests per second.
const maxRate = 1e8

// pace is when requests come in an open loop: independent of each other (a Poisson
// process), and of the server. It is the same in each run.
type pace struct {
	g       *generator
	gap     float64 // mean time between requests, nanoseconds
	rng     *rand.Rand
	due     int64 // when the next request is due
	seen    int64 // everything that was due then was sent, or found no free connection
	resting []int32
	first   int // of resting
}

// setPace makes the loop an open one. What the thread sleeps shall end when it is
// told: by default the kernel may add 50 µs. release undoes that.
func (g *generator) setPace() (release func(), err error) {
	slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err == nil {
		err = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("set timer slack: %w", err)
	}
	g.pace = &pace{g: g, gap: 1e9 / g.Rate, rng: rand.New(rand.NewPCG(1, 2))}
	return func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0) }, nil
}

// rest puts a connection without a request behind those that wait for one.
func (p *pace) rest(c *conn) {
	c.resting = true
	p.resting = append(p.resting, int32(c.id))
}

// next is a connection that is free, nil if all are busy.
func (p *pace) next() *conn {
	if p.first > len(p.g.conns) {
		p.first, p.resting = 0, p.resting[:copy(p.resting, p.resting[p.first:])]
	}
	for p.first < len(p.resting) {
		c := &p.g.conns[p.resting[p.first]]
		if p.first++; p.first == len(p.resting) {
			p.first, p.resting = 0, p.resting[:0]
		}
		if c.resting && c.fd >= 0 { // else it was lost, and may have come back
			c.resting = false
			return c
		}
	}
	return nil
}

// release sends what is due. A request that has to wait for a free connection keeps
// the time at which it was due, so that its wait is seen (no coordinated omission).
func (p *pace) release(send func(c *conn) error) {
	g, before := p.g, p.seen
	p.seen = g.now
	for p.due <= g.now {
		c := p.next()
		if c == nil {
			return
		}
		if p.due <= before && g.begun {
			g.res.Queued++
		}
		if err := send(c); err != nil {
			g.lost(c, err)
			continue
		}
		c.sentAt = p.due
		p.due += int64(p.rng.ExpFloat64() * p.gap)
	}
}

// sleep is how long an engine may sleep.
func (g *generator) sleep() time.Duration {
	if g.pace == nil || g.pace.first == len(g.pace.resting) {
		return tick
	}
	return min(max(time.Duration(g.pace.due-monotonic()), 0), tick)
}
