package receive

import "time"

// Stage is a part of the way of a segment through a ring.
type Stage uint8

const (
	elsewhere Stage = iota // whatever the ring or the application does besides
	Harvest                // descriptors from the NIC queues, and free frames to them
	Ticket                 // parsing, looking up the connection, a ticket, joining the batch
	Inject                 // the system call that injects a batch, with all that the kernel does in it
	Deliver                // the verdict's deliveries, into the streams
	Socket                 // system calls that read from sockets
	Emit                   // slots
	Stages
)

// Clock measures how long the stages take. A nil one measures nothing, and costs
// nothing worth mentioning.
type Clock struct {
	Time     [Stages]time.Duration // exclusive of each other; the first is not of interest
	stage    Stage
	last     time.Duration
	overhead time.Duration // of one change of the stage
}

var clockBase = time.Now()

// NewClock returns a clock that knows what reading it costs.
func NewClock() *Clock {
	c := new(Clock)
	const laps = 1000
	best := time.Hour
	for range 20 {
		start := time.Since(clockBase)
		for range laps {
			c.enter(elsewhere)
		}
		best = min(best, (time.Since(clockBase)-start)/laps)
	}
	*c = Clock{overhead: best, last: time.Since(clockBase)}
	return c
}

// enter begins a stage and returns the one that it interrupts.
func (c *Clock) enter(s Stage) (was Stage) {
	if c == nil {
		return elsewhere
	}
	return c.change(s)
}

func (c *Clock) change(s Stage) (was Stage) {
	now := time.Since(clockBase)
	c.Time[c.stage] += max(now-c.last-c.overhead, 0)
	was, c.stage, c.last = c.stage, s, now
	return was
}
