package pmem

import (
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/pastenet/paste/internal/hist"
)

// oldFragments is how many fragments a record has at most in a pool of version
// 2, whose programs count a record's entries in 16 bits.
const oldFragments = 1<<16 - MaxHeader/headerAlone

var noEntry [entryLen]byte

// Fragment is a piece of a record's payload: Len bytes from byte Off of data
// frame Frame.
type Fragment struct {
	Frame    uint32
	Off, Len uint16
}

// Log is the pool's append-only log. A record is a sequence of fragments, in
// frames where the payload was received or copied to, and a small header of
// the caller's; each fragment holds a reference to its frame until Truncate
// drops the record.
//
// All methods may be called from any goroutine. Records get into the log in
// the order of their Append calls. A Commit makes durable what everybody has
// appended; those that wait for another one share the next (group commit).
type Log struct {
	p    *Pool
	seed uint32

	commitMu sync.Mutex // held by whoever changes what is durable; taken before mu
	spare    batch      // memory for the next batch

	mu        sync.Mutex
	head      logHead // as it is durable
	tail      uint64  // position after the last committed entry
	last      uint64  // sequence number after the last committed record
	own       uint64  // entries from this position on are of the head's epoch
	inflight  uint64  // entries that Commit is storing from tail on
	staged    batch   // what the next Commit will store behind them
	stagedSeq uint64  // sequence number that the next record gets
	failed    error   // of Commit or Truncate, for good
	closed    bool
	wake      chan struct{} // closed at the next commit, if not nil

	times    hist.Hist // of commits, nanoseconds
	index    logIndex
	buf      [entryLen]byte // of decode
	recovery Recovery
	bad      badCopy // of the head, at Open

	public struct { // what can be looked at without the lock
		head, last, next, used atomic.Uint64
	}
}

func (l *Log) slot(pos uint64) []byte {
	off := l.slotOffset(pos)
	return l.p.mem[off : off+entryLen]
}

func (l *Log) slotOffset(pos uint64) uint64 {
	return l.p.g.logOff + pos%l.p.g.logLen*entryLen
}

// decode reads the entry at pos, if that is what its slot holds.
func (l *Log) decode(pos uint64) (entry, bool) {
	return decodeEntry(&l.buf, l.slot(pos), l.seed, pos)
}

// next returns the position that the next staged entry gets.
func (l *Log) next() uint64 {
	return l.tail + l.inflight + uint64(len(l.staged.todo))
}

func (l *Log) publish() {
	l.public.head.Store(l.head.seq)
	l.public.last.Store(l.last)
	l.publishStaged()
}

// publishStaged publishes what an append changes.
func (l *Log) publishStaged() {
	l.public.next.Store(l.stagedSeq)
	l.public.used.Store(l.next() - l.head.pos)
}

// writable says why the log cannot be written, if so.
func (l *Log) writable() error {
	switch {
	case l.closed:
		return ErrClosed
	case l.p.readOnly:
		return ErrReadOnly
	case l.failed != nil:
		return l.failed
	}
	if err := l.p.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrIO, err)
	}
	return nil
}

// Head returns the sequence number of the oldest record, or Next of an empty log.
func (l *Log) Head() uint64 { return l.public.head.Load() }

// Next returns the sequence number that the next record will get.
func (l *Log) Next() uint64 { return l.public.next.Load() }

// Committed returns the sequence number after the last committed record.
func (l *Log) Committed() uint64 { return l.public.last.Load() }

// Len returns the number of committed records in the log.
func (l *Log) Len() int { return int(l.public.last.Load() - l.public.head.Load()) }

// MaxFragments returns how many fragments one record can have: as many as the
// log has entries, less those of the longest header. In a pool of format version
// 2 it is at most 65534.
func (l *Log) MaxFragments() int {
	n := int(l.p.g.logLen) - MaxHeader/headerAlone
	if l.p.version == 2 {
		n = min(n, oldFragments)
	}
	return n
}

// Used returns how many of the pool's LogEntries are taken, staged ones included.
func (l *Log) Used() uint64 { return l.public.used.Load() }

// changed ends a change of the log, in a defer statement of whoever holds the
// lock; old is what SetPanicOnFault(true) returned at its beginning. Unless it
// is done the log has failed for good: the pool's memory is gone, or a panic in
// other memory, such as a payload's that is copied, leaves it half done.
func (l *Log) changed(old bool, done *bool, err *error) {
	debug.SetPanicOnFault(old)
	if *done {
		return
	}
	l.fail(fmt.Errorf("%w: a panic interrupted a change of the log", ErrIO))
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: %w", ErrIO, l.p.faultError(r))
		l.failed = *err
	}
}

// fail ends the log for good.
func (l *Log) fail(err error) {
	if l.failed == nil {
		l.failed = err
		l.signal()
	}
}

// close wakes those who wait, and leaves word up to where the log is durable,
// so that what is missing later is damage and no interrupted commit.
func (l *Log) close() (err error) {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tail > l.head.durable && l.failed == nil && !l.closed && !l.p.readOnly {
		_ = l.p.watch.look(&l.p.file, l.p.g.size) // then storing says so
		h := l.head
		h.gen++
		h.durable = l.tail
		err = l.p.storing(func() error { return writeHead(l.p.mem, l.p.dom, &l.p.g, l.seed, &h) })
	}
	l.closed = true
	l.signal()
	return err
}

// signal wakes those who wait for records.
func (l *Log) signal() {
	if l.wake != nil {
		close(l.wake)
		l.wake = nil
	}
}
