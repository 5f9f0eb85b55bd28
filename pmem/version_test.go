package pmem

import (
	"bytes"
	"testing"

	"github.com/go-quicktest/qt"
)

// largeLog makes a pool whose log has room for records of many fragments, and
// such a record, of single bytes in one frame, with one behind it.
func largeLog(t *testing.T, version uint32, frags int) (mem []byte, seq uint64, err error) {
	t.Helper()
	mem = make([]byte, 16<<20)
	g, err := layout(uint64(len(mem)), 2048, 200_000)
	qt.Assert(t, qt.IsNil(err))
	s := superblock{version: version, geometry: g, uuid: UUID{1}, created: now()}
	qt.Assert(t, qt.IsNil(format(mem, &noDomain{mem}, s)))
	p, err := OpenMemory(mem, nil, Options{NoFlush: true})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(p.Version(), int(version)))
	var f [1]uint32
	p.Alloc(f[:])
	for i := range p.Frame(f[0]) {
		p.Frame(f[0])[i] = byte(i)
	}
	list := make([]Fragment, frags)
	for i := range list {
		list[i] = Fragment{Frame: f[0], Off: uint16(i % 2048), Len: 1}
	}
	if seq, err = p.Log().AppendHeader([]byte("header"), list, false); err != nil {
		return nil, 0, err
	}
	qt.Assert(t, qt.IsNil(p.Log().Commit()))
	_, err = p.Log().AppendCopy([]byte("behind it"))
	qt.Assert(t, qt.IsNil(err))
	return mem, seq, p.Log().Commit()
}

// A record may have as many fragments as the log has entries, also more than
// 16 bits can count, and is found again.
func TestLargeRecord(t *testing.T) {
	const frags = 150_000
	mem, seq, err := largeLog(t, formatVersion, frags)
	qt.Assert(t, qt.IsNil(err))
	p, err := OpenMemory(bytes.Clone(mem), nil, Options{NoFlush: true})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(p.Log().Len(), 2))
	r, err := p.Log().Record(seq)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(r.Fragments, frags))
	qt.Assert(t, qt.Equals(string(r.Header), "header"))
	qt.Assert(t, qt.IsNil(r.Verify()))
	qt.Assert(t, qt.Equals(payloadOf(t, r)[frags-1], byte((frags-1)%2048%256)))

	// What is damaged in its middle is damage, however far the next record is.
	clear(mem[p.g.logOff+1000*entryLen:][:entryLen])
	p, err = OpenMemory(mem, nil, Options{ReadOnly: true})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.ErrorIs(p.Log().Recovery().Damage, ErrDamaged))
}

// A pool of the format before stays what it is: programs of then can read what
// is added to it, so that its records have their limit.
func TestOldVersion(t *testing.T) {
	mem, seq, err := largeLog(t, oldestVersion, oldFragments)
	qt.Assert(t, qt.IsNil(err))
	p, err := OpenMemory(mem, nil, Options{NoFlush: true})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(p.Version(), oldestVersion))
	qt.Assert(t, qt.Equals(p.Log().MaxFragments(), oldFragments))
	r, err := p.Log().Record(seq)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(r.Verify()))
	_, _, err = largeLog(t, oldestVersion, oldFragments+1)
	qt.Assert(t, qt.ErrorIs(err, ErrFragment))
	qt.Assert(t, qt.ErrorMatches(err, ".*at most 65534"))
}
