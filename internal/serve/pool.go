package serve

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/internal/interrupt"
	"github.com/pastenet/paste/pmem"
)

// ErrOtherPool says that there is a pool, and that it is not as asked for.
var ErrOtherPool = errors.New("the pool is another one than asked for")

// Pool says which pool a server uses.
type Pool struct {
	Path string
	// Size and FrameSize in bytes of a pool that has to be made; one that exists
	// must have them. A Size of 0 is that of the pool that exists, or
	// DefaultPoolSize, or all of a device; a FrameSize of 0 that of the pool that
	// exists, or pmem's default.
	Size      int64
	FrameSize int
	// AllowForeign opens a file that another user owns or may write to.
	AllowForeign bool
	// NoVainFlush is pmem's.
	NoVainFlush bool
}

// DefaultPoolSize is the size in bytes of a pool file that is made without a size
// being asked for.
const DefaultPoolSize = 1 << 30

// Open opens the pool, or makes one. It returns as soon as ctx is done.
func (o *Pool) Open(ctx context.Context) (*pmem.Pool, error) {
	pool, err := interrupt.Wait(ctx, o.openOrCreate, func(p *pmem.Pool) { ClosePool(p, false) })
	if errors.Is(err, interrupt.ErrInterrupted) {
		return nil, fmt.Errorf("%w while pool %s was opened", err, o.Path)
	}
	if err != nil {
		return nil, err
	}
	if err := o.compare(pool); err != nil {
		return nil, errors.Join(err, ClosePool(pool, false))
	}
	return pool, nil
}

func (o *Pool) openOrCreate() (*pmem.Pool, error) {
	size := o.Size
	if st, err := os.Stat(o.Path); size == 0 && (err != nil || st.Mode()&os.ModeCharDevice == 0) {
		size = DefaultPoolSize
	}
	return pmem.OpenOrCreate(o.Path, pmem.Options{Size: size, FrameSize: o.FrameSize, AllowForeign: o.AllowForeign, NoVainFlush: o.NoVainFlush})
}

// compare refuses a pool that was made earlier, with other sizes.
func (o *Pool) compare(pool *pmem.Pool) error {
	if o.FrameSize != 0 && pool.FrameSize() != o.FrameSize {
		return fmt.Errorf("%w: %s has frames of %d bytes, not %d; leave out the frame size, or move the pool into one with such frames",
			ErrOtherPool, o.Path, pool.FrameSize(), o.FrameSize)
	}
	// A new pool's size is rounded up to whole pages of what it is in.
	size, unit := int64(len(pool.Mem())), int64(unix.Getpagesize())
	var fs unix.Statfs_t
	switch err := unix.Statfs(o.Path, &fs); {
	case pool.Backing() == pmem.BackingDAX:
		unit = 2 << 20
	case err == nil:
		unit = max(unit, fs.Bsize)
	}
	if o.Size != 0 && (size < o.Size || size-o.Size >= unit) {
		return fmt.Errorf("%w: %s has %d bytes, not %d; leave out the size, or let the pool grow first", ErrOtherPool, o.Path, size, o.Size)
	}
	return nil
}

// ClosePool closes a server's pool. One that was made for a server which then
// could not start is removed, while its lock still keeps others out; on a
// device, whose name is not ours to remove, it stays.
func ClosePool(pool *pmem.Pool, started bool) (err error) {
	if !started && pool.IsNew() && pool.Backing() != pmem.BackingDAX {
		err = os.Remove(pool.Path())
	}
	return errors.Join(err, pool.Close())
}
