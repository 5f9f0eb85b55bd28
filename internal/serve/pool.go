package serve

import (
	"errors"
	"os"

	"github.com/pastenet/paste/pmem"
)

// Pool says which pool a server uses.
type Pool struct {
	Path string
	// Size and FrameSize in bytes of a pool that has to be made. A Size of 0 is
	// DefaultPoolSize, or all of a device; a FrameSize of 0 is pmem's default.
	Size      int64
	FrameSize int
	// AllowForeign opens a file that another user owns or may write to.
	AllowForeign bool
}

// DefaultPoolSize is the size in bytes of a pool file that is made without a size
// being asked for.
const DefaultPoolSize = 1 << 30

// open opens the pool, or makes one.
func (o *Pool) open() (*pmem.Pool, error) {
	size := o.Size
	if st, err := os.Stat(o.Path); size == 0 && (err != nil || st.Mode()&os.ModeCharDevice == 0) {
		size = DefaultPoolSize
	}
	return pmem.OpenOrCreate(o.Path, pmem.Options{Size: size, FrameSize: o.FrameSize, AllowForeign: o.AllowForeign})
}

// closePool closes a server's pool. One that was made for a server which then
// could not start is removed, while its lock still keeps others out; on a
// device, whose name is not ours to remove, it stays.
func closePool(pool *pmem.Pool, started bool) (err error) {
	if !started && pool.IsNew() && pool.Backing() != pmem.BackingDAX {
		err = os.Remove(pool.Path())
	}
	return errors.Join(err, pool.Close())
}
