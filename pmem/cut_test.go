package pmem

import (
	"bytes"
	"testing"

	"github.com/go-quicktest/qt"
)

func appendCommit(t *testing.T, p *Pool, payloads ...string) {
	t.Helper()
	for _, b := range payloads {
		_, err := p.Log().AppendCopy([]byte(b))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(p.Log().Commit()))
	}
}

func logOf(t *testing.T, p *Pool) (all []string) {
	t.Helper()
	for r, err := range p.Log().Records() {
		qt.Assert(t, qt.IsNil(err))
		all = append(all, string(payloadOf(t, r)))
	}
	return all
}

// What was cut off is gone also when the pool is opened before anything else
// was appended, its numbers come again, and its frames are free.
func TestTruncateAfter(t *testing.T) {
	path, p := newFile(t, Options{})
	free := p.Free()
	appendCommit(t, p, "one", "two", "three", "four")
	_, err := p.Log().AppendCopy([]byte("staged"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(p.Log().TruncateAfter(2)))
	qt.Assert(t, qt.Equals(p.Log().Next(), 3))
	qt.Assert(t, qt.Equals(p.Free(), free-2))
	_, err = p.Log().Record(3)
	qt.Assert(t, qt.ErrorIs(err, ErrNoRecord))
	for range 2 {
		p.Close()
		p, err = Open(path, Options{})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.DeepEquals(logOf(t, p), []string{"one", "two"}))
	}
	appendCommit(t, p, "drei")
	qt.Assert(t, qt.DeepEquals(logOf(t, p), []string{"one", "two", "drei"}))
	qt.Assert(t, qt.IsNil(p.Log().Truncate(1)))
	qt.Assert(t, qt.IsNil(p.Log().TruncateAfter(0))) // all of it
	qt.Assert(t, qt.Equals(p.Free(), free))
	qt.Assert(t, qt.Equals(p.Log().Next(), 2))
	p.Close()
	p, err = Open(path, Options{})
	qt.Assert(t, qt.IsNil(err))
	defer p.Close()
	qt.Assert(t, qt.Equals(p.Log().Len(), 0))
	qt.Assert(t, qt.Equals(p.Free(), free))
}

// A log that was cut is still held to what was durable behind the cut.
func TestDamageAfterCut(t *testing.T) {
	path, p := newFile(t, Options{})
	appendCommit(t, p, "one", "two", "three", "four")
	qt.Assert(t, qt.IsNil(p.Log().TruncateAfter(1)))
	appendCommit(t, p, "zwei", "drei")
	ring := int64(p.g.logOff)
	p.Close()
	flip(t, path, ring+entryLen+24)
	_, err := Open(path, Options{})
	qt.Assert(t, qt.ErrorIs(err, ErrDamaged))
	qt.Assert(t, qt.ErrorMatches(err, ".*log entry 1, of record 2.*"))
}

// Programs that know an older format would find the dropped records again.
func TestTruncateAfterOldVersion(t *testing.T) {
	for v := uint32(oldestVersion); v < cutVersion; v++ {
		mem, g, err := smallPool()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(format(mem, &noDomain{mem}, superblock{version: v, geometry: g, uuid: UUID{1}, created: now()})))
		p, err := OpenMemory(mem, nil, Options{})
		qt.Assert(t, qt.IsNil(err))
		appendCommit(t, p, "one", "two")
		qt.Assert(t, qt.ErrorIs(p.Log().TruncateAfter(1), ErrVersion))
		qt.Assert(t, qt.Equals(p.Version(), int(v)))
		p, err = OpenMemory(bytes.Clone(mem), nil, Options{})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.DeepEquals(logOf(t, p), []string{"one", "two"}))
	}
}
