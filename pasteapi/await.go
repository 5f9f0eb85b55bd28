package pasteapi

import (
	"errors"
	"time"
)

// Fd is a descriptor for epoll, poll or Go's own poller: it becomes readable when
// there is something for the ring to do, provided that Await was called before. It
// stays the ring's. Nothing may be read from it, and it tells of changes: after it was
// readable, call Await until that has nothing more.
func (r *Ring) Fd() int { return r.wait.FD() }

// Await is a Poll that does not wait, for programs that wait for Fd, with other things,
// instead of in Poll. It looks at everything, slots of the RX ring, watched descriptors
// (Ready) and Wake, and returns the number of RX slots. If there is nothing, wait says
// for how long at most to sleep before Await is called again; 0 means that there is
// something to do now. A program that does not sleep after all calls Poll or Await as
// ever. Errors are those of Poll.
func (r *Ring) Await() (n int, wait time.Duration, err error) {
	if !r.wait.Enter() {
		return 0, 0, ErrClosed
	}
	defer r.wait.Leave()
	r.ready = r.ready[:0]
	txErr := r.TxSync()
	if txErr != nil && !errors.Is(txErr, ErrRingCorrupt) {
		return 0, 0, txErr
	}
	// From here on the verdict tells of deliveries; what it delivered before is
	// found below.
	r.in.Sleeping(true)
	woken, err := r.look(0)
	if err != nil {
		return 0, 0, err
	}
	if n, err = r.RxSync(); n == 0 && err == nil && !woken && len(r.ready) == 0 && !r.in.Pending() {
		wait = time.Duration(r.limit(-1)) * time.Millisecond
	} else {
		r.in.Sleeping(false)
	}
	return n, wait, errors.Join(txErr, err)
}
