package pmem

import (
	"errors"
	"io/fs"
)

// meaning is an error of this package that says the same as one of Go's.
type meaning struct {
	text string
	is   error
}

func (m *meaning) Error() string { return m.text }
func (m *meaning) Unwrap() error { return m.is }

// Errors on which callers decide; each is returned wrapped in a sentence that
// names the file, the limit that was met and, where there is one, the remedy.
var (
	// ErrNotPool: the file is empty or holds something that is no pool.
	ErrNotPool = errors.New("not a pool")
	// ErrIncomplete: the creation of the pool was interrupted; nothing was ever stored in it.
	ErrIncomplete = errors.New("creation of the pool was interrupted")
	// ErrVersion: the pool was written in a format that this code does not know.
	ErrVersion = errors.New("unknown pool format version")
	// ErrDamaged: a checksum or a value that was once durable is wrong.
	ErrDamaged = errors.New("damaged pool")
	// ErrTruncated: the file is shorter than its superblock says, or became so
	// while it was mapped; also memory that the medium cannot deliver.
	ErrTruncated = errors.New("truncated pool")
	// ErrPurpose: the pool is for something else than what was claimed.
	ErrPurpose = errors.New("pool is for something else")
	// ErrLost: the file of a pool that is open was removed, replaced or truncated.
	// Nothing is committed any more; every such call returns it.
	ErrLost = errors.New("pool file lost")
	// ErrLocked: another process has the pool open.
	ErrLocked = errors.New("pool in use")
	// ErrOwner: the file is another user's, or others may write to it, and
	// Options.AllowForeign was not given.
	ErrOwner = errors.New("pool file is not this user's alone")
	// ErrBacking: the file is not on memory that a packet buffer can live in.
	ErrBacking = errors.New("not memory that packet buffers can live in")
	// ErrSize: a size, frame size or log size that cannot be had.
	ErrSize = errors.New("impossible pool size")
	// ErrIO: data could not be made durable; the pool has failed for good, and
	// what it holds is what the last successful commit left. Open it again.
	ErrIO = errors.New("pool failed: data could not be made durable")
	// ErrKind: a root leads to a kind of structure that this program does not know.
	ErrKind = errors.New("unknown kind of structure")
	// ErrRoot: a root that cannot be.
	ErrRoot = errors.New("invalid root")
	// ErrFull: no free frame, or no free log entry.
	ErrFull = errors.New("pool full")
	// ErrExists: Create was asked to make a pool where there is a file already. It
	// wraps fs.ErrExist.
	ErrExists error = &meaning{"file exists", fs.ErrExist}
	// ErrReadOnly: the operation writes, and the pool was opened read-only.
	ErrReadOnly = errors.New("pool is open read-only")
	// ErrBusy: the pool cannot be closed, because a part of this process holds it.
	ErrBusy = errors.New("pool is held")
	// ErrClosed: the pool was closed. It wraps fs.ErrClosed, which os.ErrClosed is too.
	ErrClosed error = &meaning{"pool is closed", fs.ErrClosed}
	// ErrFragment: a fragment that does not lie inside an allocated data frame.
	ErrFragment = errors.New("invalid fragment")
	// ErrNoRecord: no record with that sequence number is in the log. It wraps
	// fs.ErrNotExist.
	ErrNoRecord error = &meaning{"no such record", fs.ErrNotExist}
	// ErrChecksum: a record's payload is not what was appended.
	ErrChecksum = errors.New("checksum mismatch")
)
