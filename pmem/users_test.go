package pmem

import (
	"os"
	"testing"

	"github.com/go-quicktest/qt"
)

// A pool that somebody works with is not closed under them.
func TestHold(t *testing.T) {
	path, p := newFile(t, Options{})
	one, err := p.Hold("the port on a")
	qt.Assert(t, qt.IsNil(err))
	two, err := p.Hold("the port on b")
	qt.Assert(t, qt.IsNil(err))
	err = p.Close()
	qt.Assert(t, qt.ErrorIs(err, ErrBusy))
	qt.Assert(t, qt.ErrorMatches(err, "close pool .*: pool is held by the port on a and the port on b; close that first"))
	_, err = p.Log().AppendCopy([]byte("it goes on to work"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(p.Log().Commit()))
	one()
	one()
	qt.Assert(t, qt.ErrorMatches(p.Close(), ".*held by the port on b;.*"))
	two()
	qt.Assert(t, qt.IsNil(p.Close()))
	qt.Assert(t, qt.IsNil(p.Close()))
	_, err = p.Hold("the port on c")
	qt.Assert(t, qt.ErrorIs(err, ErrClosed))
	qt.Assert(t, qt.ErrorIs(err, os.ErrClosed))
	q, err := Open(path, Options{})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(q.Log().Len(), 1))
	qt.Assert(t, qt.IsNil(q.Close()))
}
