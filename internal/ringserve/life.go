package ringserve

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/pastenet/paste/internal/cpupin"
)

// Phase is where a server is in its life.
type Phase int32

// The phases, in their order.
const (
	Running  Phase = iota
	Draining       // finishing what has begun
	Stopped
)

// Life takes a server from one phase to the next. It may be used by several
// goroutines at once.
type Life struct {
	phase atomic.Int32
	// Wake has the server's loops look at the phase. It is set before there are any.
	Wake func()
}

// In reports whether the server has come as far as a phase.
func (l *Life) In(p Phase) bool { return l.phase.Load() >= int32(p) }

// Enter takes the server to a later phase, and tells its loops.
func (l *Life) Enter(p Phase) {
	for {
		old := l.phase.Load()
		if old >= int32(p) {
			return
		}
		if l.phase.CompareAndSwap(old, int32(p)) {
			break
		}
	}
	l.Wake()
}

// EndWith makes the server drain when ctx is done, and stop when it has drained
// for as long as limit, or something is lost. The function that it returns ends
// that; afterwards no loop is woken any more.
func (l *Life) EndWith(ctx context.Context, limit time.Duration, lost <-chan struct{}) (end func()) {
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-ctx.Done():
		case <-lost:
			l.Enter(Stopped)
			return
		case <-ended:
			return
		}
		l.Enter(Draining)
		after := time.NewTimer(limit)
		defer after.Stop()
		select {
		case <-after.C:
			l.Enter(Stopped)
		case <-lost:
			l.Enter(Stopped)
		case <-ended:
		}
	}()
	return func() {
		close(ended)
		<-done
	}
}

// Thread runs the loop of ring i on a thread of its own, pinned to one of cpus if
// there are any. An error stops the server.
func (l *Life) Thread(cpus []int, i int, run func() error) (err error) {
	defer func() {
		if err != nil {
			l.Enter(Stopped)
		}
	}()
	runtime.LockOSThread()
	if len(cpus) == 0 {
		defer runtime.UnlockOSThread()
	} else if err := cpupin.Pin(cpus[i%len(cpus)]); err != nil {
		return err
	}
	// A pinned thread stays locked, so that it ends with the goroutine and its
	// affinity does not leak to other goroutines.
	return run()
}
