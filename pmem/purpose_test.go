package pmem

import (
	"bytes"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// What a pool is for is said once, and found again: after it was closed, and in
// a pool that was restored from its archive.
func TestPurpose(t *testing.T) {
	path, p := newFile(t, Options{})
	qt.Assert(t, qt.Equals(p.Purpose(), ""))
	for _, bad := range []string{"", "a\x00b", strings.Repeat("x", MaxPurpose+1)} {
		qt.Assert(t, qt.ErrorIs(p.Claim(bad), ErrPurpose))
	}
	longest := strings.Repeat("x", MaxPurpose)
	qt.Assert(t, qt.IsNil(p.Claim(longest)))
	qt.Assert(t, qt.IsNil(p.Claim(longest)))
	qt.Assert(t, qt.IsNil(p.Close()))
	for _, readOnly := range []bool{true, false} {
		p, err := Open(path, Options{ReadOnly: readOnly})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(p.Purpose(), longest))
		qt.Assert(t, qt.IsNil(p.Claim(longest)))
		err = p.Claim("kv")
		qt.Assert(t, qt.ErrorIs(err, ErrPurpose))
		qt.Assert(t, qt.ErrorMatches(err, `pool is for something else: .*p.pool is for "x*", and not for "kv"; .*`))
		qt.Assert(t, qt.IsNil(p.Close()))
	}
	p, err := Open(path, Options{ReadOnly: true})
	qt.Assert(t, qt.IsNil(err))
	var archive bytes.Buffer
	qt.Assert(t, qt.IsNil(p.Dump(&archive, nil)))
	qt.Assert(t, qt.IsNil(p.Close()))
	q, err := Restore(&archive, path+".restored", Options{Size: testSize})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(q.Purpose(), longest))
	qt.Assert(t, qt.IsNil(q.Close()))
}
