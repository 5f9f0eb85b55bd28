package pmem

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// watchEvery is how often a pool looks whether its file is still there. What is
// stored in between is no more lost than all that was stored before.
const watchEvery = 100 * time.Millisecond

// watch notices that a pool's file was removed, replaced or truncated.
type watch struct {
	err  atomic.Pointer[error] // why the file is lost
	lost chan struct{}         // closed when err is set
	once sync.Once             // of lost
	stop chan struct{}         // nil: nothing is watched
	done sync.WaitGroup
}

// start begins to watch a pool that is open for writing and has a name.
func (w *watch) start(f *poolFile, size uint64) {
	w.stop = make(chan struct{})
	w.done.Add(1)
	go func() {
		defer w.done.Done()
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			select {
			case <-w.stop:
				return
			case <-tick.C:
			}
			if w.look(f, size) != nil {
				return
			}
		}
	}()
}

// look finds out whether the file is lost, now.
func (w *watch) look(f *poolFile, size uint64) error {
	if err := w.error(); err != nil || w.stop == nil {
		return err
	}
	err := present(f, size)
	if err != nil && w.err.CompareAndSwap(nil, &err) {
		w.once.Do(func() { close(w.lost) })
	}
	return err
}

func (w *watch) error() error {
	if err := w.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (w *watch) end() {
	if w.stop != nil {
		close(w.stop)
		w.done.Wait()
	}
}

// present fails if an open file has no name any more, or is shorter than size.
// A device cannot be lost like that.
func present(f *poolFile, size uint64) error {
	var st unix.Stat_t
	switch err := unix.Fstat(int(f.Fd()), &st); {
	case err != nil:
		return fmt.Errorf("%w: %s: %w", ErrLost, f.path(), err)
	case uint64(st.Size) < size:
		return fmt.Errorf("%w: %s was cut off at byte %d of %d while it was open (%w); bring it back from a copy", ErrLost, f.path(), st.Size, size, ErrTruncated)
	case st.Nlink == 0:
		return fmt.Errorf("%w: %s was removed or replaced while it was open; it is gone when this process ends", ErrLost, f.path())
	}
	return nil
}

// Lost is closed when the pool's file was removed, replaced or truncated while
// the pool was open for writing. Err then says what happened, and nothing is
// committed any more. It takes a moment until that is noticed.
func (p *Pool) Lost() <-chan struct{} { return p.watch.lost }

// Err returns nil, or an error that wraps ErrLost: see Lost.
func (p *Pool) Err() error { return p.watch.error() }
