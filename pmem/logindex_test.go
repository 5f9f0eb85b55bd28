package pmem

import (
	"testing"

	"github.com/go-quicktest/qt"
)

// A truncation gives back the frames of entries that have become rotten since.
func TestTruncateRotten(t *testing.T) {
	p := memory(t, Options{})
	free := p.Free()
	for range 5 {
		p.Log().AppendCopy([]byte("payload"))
	}
	qt.Assert(t, qt.IsNil(p.Log().Commit()))
	for pos := range uint64(5) {
		p.Log().slot(pos)[24] ^= 0x80
	}
	qt.Assert(t, qt.IsNil(p.Log().Truncate(3)))
	qt.Assert(t, qt.Equals(p.Log().Head(), 4))
	qt.Assert(t, qt.Equals(p.Free(), free-2))
	qt.Assert(t, qt.IsNil(p.Log().Truncate(5)))
	qt.Assert(t, qt.Equals(p.Free(), free))
}
