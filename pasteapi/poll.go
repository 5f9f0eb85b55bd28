package pasteapi

import (
	"errors"
	"time"

	"github.com/pastenet/paste/internal/hist"
	"github.com/pastenet/paste/pasteapi/internal/wait"
	"golang.org/x/sys/unix"
)

// checkEvery is how many busy Polls may pass without a look at the events
// (closed connections, listeners): each look is a system call.
const checkEvery = 8

// pace is when a ring looks at what is not looked at each time.
type pace struct {
	checks   uint32 // Polls since the last look at the events
	lastTick int64  // the last sweep

	noTxPoll bool // Options.NoTxPoll

	batches hist.Hist // slots that each Poll had
}

// Poll sends what is in the TX ring, then waits until there are slots in the
// RX ring, a watched descriptor is readable, Wake was called, or the timeout
// has passed (negative: no limit; 0: does not wait, which is busy polling). It
// returns the number of RX slots that the application owns.
//
// Errors: ErrClosed, also when the port is closed while Poll waits;
// ErrRingCorrupt when the application broke the rules of one ring or of both
// (then the error wraps a RingError for each). Both rings are usable again then,
// but the slots of a broken one stand as after the last sync: received ones that
// the application had done with are there once more, and what it had written
// into TX slots is not sent, as a rule. Anything else is a system call that
// failed in a way that does not pass.
//
// Poll and the application read the pool's memory. Where others can truncate its
// file, the loop around Poll belongs under pmem.Pool.Guard, which makes an error of
// what would end the process; close the port after it.
func (r *Ring) Poll(timeout time.Duration) (int, error) {
	if !r.wait.Enter() {
		return 0, ErrClosed
	}
	defer r.wait.Leave()
	n, err := r.poll(timeout)
	if n > 0 {
		r.pace.batches.Record(uint64(n))
	}
	r.expose()
	return n, err
}

func (r *Ring) poll(timeout time.Duration) (int, error) {
	r.ready = r.ready[:0]
	var txErr error
	if r.pace.noTxPoll {
		txErr = r.closeSent()
	} else {
		txErr = r.txSync()
	}
	if txErr != nil && !errors.Is(txErr, ErrRingCorrupt) {
		return 0, txErr
	}
	n, err := r.rxSync()
	if txErr != nil || err != nil {
		return n, errors.Join(txErr, err)
	}
	r.pace.checks++
	if n > 0 || timeout == 0 {
		if r.pace.checks < checkEvery && !r.in.Reading() && !r.wait.IsOutside() && (n > 0 || r.udp.in.Sockets() == 0) {
			return n, nil
		}
		if _, err := r.look(0); err != nil {
			return 0, err
		}
		return r.rxSync()
	}
	return r.sleep(timeout)
}

// RxSync makes received payloads available in the RX ring, and returns how
// many slots the application owns there now. Slots before Head are given back
// to the port. It never blocks.
func (r *Ring) RxSync() (int, error) {
	if r.closed {
		return 0, ErrClosed
	}
	if r.in.Reading() || r.wait.IsOutside() || r.udp.in.Sockets() > 0 {
		// What waits in sockets shows in events only.
		r.ready = r.ready[:0]
		if _, err := r.look(0); err != nil {
			return 0, err
		}
	}
	n, err := r.rxSync()
	r.expose()
	return n, err
}

// TxSync sends the slots from the last sync up to Head: one send per connection, in
// order for each, all of them in one system call with io_uring (Options.Send), and
// with all slots of a connection as one message. The kernel has copied what was sent
// when TxSync returns. It never blocks.
//
// What a full socket does not take leaves the ring too: its buffer is
// exchanged for a free one (NS_BUF_CHANGED), or copied when the pool has none,
// and follows when the peer has read. Meanwhile the connection's received
// segments are held back. A connection with more than Options.TxLimit bytes
// waiting is given up and ends with ErrTxOverflow; so is one for which neither a
// free buffer is left nor room for another copy (64 MiB for a ring). Slots for a
// descriptor that is not registered are dropped and counted (Stats.TxDropped):
// their connection has just gone.
func (r *Ring) TxSync() error {
	err := r.txSync()
	r.expose()
	return err
}

// sleep spins for a while and then waits for events.
func (r *Ring) sleep(timeout time.Duration) (int, error) {
	spinning := wait.Start()
	for {
		block := time.Duration(-1)
		if timeout >= 0 {
			block = max(timeout-spinning.Elapsed(), 0)
		}
		outcome := wait.Over
		if !r.in.Reading() && r.udp.in.Sockets() == 0 {
			outcome = r.wait.Spin(&spinning, r.in, timeout)
		}
		if r.wait.Ending() {
			return 0, ErrClosed
		}
		woken := false
		if outcome != wait.Found {
			if outcome == wait.Look {
				block = 0
			}
			var err error
			if woken, err = r.look(block); err != nil {
				return 0, err
			}
			if r.wait.Ending() {
				return 0, ErrClosed
			}
		}
		n, err := r.rxSync()
		if n > 0 {
			r.wait.Came(&spinning)
		}
		if n > 0 || err != nil || woken || len(r.ready) > 0 {
			return n, err
		}
		if timeout >= 0 && spinning.Elapsed() >= timeout {
			return 0, nil
		}
	}
}

// look waits for events, not at all if block is 0, and handles them. The result
// says whether Wake was called.
func (r *Ring) look(block time.Duration) (woken bool, err error) {
	r.pace.checks = 0
	r.work()
	if now := wait.Now(); now-r.pace.lastTick > int64(time.Second) {
		r.pace.lastTick = now
		r.sweep()
	}
	r.publish()
	ms := r.limit(block)
	sleeps := ms != 0
	if sleeps {
		r.wait.Adapt(r.in.Reading() || r.udp.in.Sockets() > 0)
		r.in.Sleeping(true)
		if r.in.Pending() || r.udp.in.Pending() {
			ms = 0
		}
	}
	events, woken, err := r.wait.Wait(ms)
	if sleeps {
		r.in.Sleeping(false)
	}
	if err != nil {
		return false, err
	}
	for i := range events {
		r.handle(&events[i])
	}
	r.settle()
	r.in.CheckEnds()
	return woken, r.closeSent()
}

// limit is how many milliseconds a look may wait.
func (r *Ring) limit(block time.Duration) int {
	most := min(r.soon(), time.Second) // the sweep has to run
	if block >= 0 {
		most = min(block, most)
	}
	return int((most + time.Millisecond - 1) / time.Millisecond)
}

func (r *Ring) handle(ev *wait.Event) {
	if ev.Kind == wait.User {
		r.ready = append(r.ready, ev.FD)
		return
	}
	c := r.conns.Find(ev.FD)
	if c == nil {
		return
	}
	if c.dgram != nil {
		r.hasRoom(c, ev.Mask)
		r.udp.handle(c.dgram, ev.Mask, c.room)
		return
	}
	if ev.Mask&unix.EPOLLOUT != 0 {
		r.out.Resume(&c.out)
	}
	r.hasRoom(c, ev.Mask)
	if ev.Mask&unix.EPOLLIN != 0 {
		r.in.Input(&c.in)
	}
	if ev.Mask&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		r.in.HungUp(&c.in)
	}
}
