package pmem

import (
	"testing"

	"github.com/go-quicktest/qt"
)

// What only one structure may refer to is found when two do, and both are
// named; what may be shared is shared.
func TestClaimedTwice(t *testing.T) {
	type roots map[string]Root
	for _, tc := range []struct {
		name   string
		roots  func(f []uint32) roots
		record bool // a record lies in the first frame
		want   string
	}{
		{"two chains", func(f []uint32) roots {
			return roots{"a": {Kind: kindChain, Frame: f[0]}, "b": {Kind: kindChain, Frame: f[1]}}
		}, false, `root "b" \(chain\): damaged pool: it owns frame 14 alone, and root "a" \(chain\) refers to that as well`},
		{"a frame of a chain", func(f []uint32) roots {
			return roots{"a": {Kind: kindChain, Frame: f[1]}, "b": {Kind: KindFrame, Frame: f[0]}}
		}, false, `root "b" \(frame\): damaged pool: it refers to frame 14, which root "a" \(chain\) owns alone`},
		{"a chain over a frame", func(f []uint32) roots {
			return roots{"a": {Kind: KindFrame, Frame: f[0]}, "b": {Kind: kindChain, Frame: f[1]}}
		}, false, `root "b" \(chain\): damaged pool: it owns frame 14 alone, and root "a" \(frame\) refers to that as well`},
		{"a record in a chain", func(f []uint32) roots {
			return roots{"a": {Kind: kindChain, Frame: f[1]}}
		}, true, `root "a" \(chain\): damaged pool: it owns frame 14 alone, and record 1 of the log refers to that as well`},
		{"a ring", func(f []uint32) roots {
			return roots{"a": {Kind: kindChain, Frame: f[2]}}
		}, false, `root "a" \(chain\): damaged pool: it refers to frame 16 twice, which it owns alone`},
		{"shared", func(f []uint32) roots {
			return roots{"a": {Kind: KindFrame, Frame: f[0]}, "b": {Kind: KindFrame, Frame: f[0]}}
		}, true, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := memory(t, Options{Size: 200 << 10, LogEntries: 32})
			f := make([]uint32, 3)
			qt.Assert(t, qt.Equals(p.Alloc(f), 3))
			qt.Assert(t, qt.Equals(f[0], 14))
			le.PutUint32(p.Frame(f[0]), 0)
			le.PutUint32(p.Frame(f[1]), f[0])
			le.PutUint32(p.Frame(f[2]), f[2])
			if tc.record {
				_, err := p.Log().Append([]Fragment{{Frame: f[0], Off: 4, Len: 10}}, true)
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.IsNil(p.Log().Commit()))
			}
			for name, r := range tc.roots(f) {
				qt.Assert(t, qt.IsNil(p.SetRoot(name, r)))
			}
			mem := append([]byte(nil), p.Mem()...)
			_, err := OpenMemory(mem, nil, Options{})
			q, roErr := OpenMemory(mem, nil, Options{ReadOnly: true})
			qt.Assert(t, qt.IsNil(roErr))
			var found []error
			_, checkErr := q.Check(t.Context(), nil, func(err error) { found = append(found, err) })
			qt.Assert(t, qt.IsNil(checkErr))
			if tc.want == "" {
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.HasLen(found, 0))
				return
			}
			qt.Assert(t, qt.ErrorIs(err, ErrDamaged))
			qt.Assert(t, qt.ErrorMatches(err, "open pool in memory: "+tc.want))
			qt.Assert(t, qt.HasLen(found, 1))
			qt.Assert(t, qt.ErrorMatches(found[0], tc.want))
			if tc.record { // the log is as good as before
				r, err := q.Log().Record(1)
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.IsNil(r.Verify()))
			}
		})
	}
}

// A table of roots with a right checksum is held to the rules of SetRoot.
func TestImpossibleRoots(t *testing.T) {
	for _, tc := range []struct {
		root Root
		want string
	}{
		{Root{Kind: KindValue, Frame: 14}, `root "a" \(value\): damaged pool: it names frame 14, and its kind has no frames`},
		{Root{Kind: KindFrame}, `root "a" \(frame\): damaged pool: frame 0 is no data frame.*`},
		{Root{Kind: kindIdle, Frame: 14}, `root "a" \(idle\): damaged pool: it names frame 14, which nothing owns`},
	} {
		p := memory(t, Options{Size: 200 << 10, LogEntries: 32})
		qt.Assert(t, qt.IsNil(writeRoots(p.mem, p.dom, &p.g, p.seed, 9, []namedRoot{{"a", tc.root}, {"b", Root{}}})))
		mem := append([]byte(nil), p.Mem()...)
		_, err := OpenMemory(mem, nil, Options{})
		qt.Assert(t, qt.ErrorIs(err, ErrDamaged))
		qt.Assert(t, qt.ErrorMatches(err, "open pool in memory: "+tc.want))
		q, err := OpenMemory(mem, nil, Options{ReadOnly: true})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.HasLen(q.Problems(), 1))
		_, ok := q.Root("b")
		qt.Assert(t, qt.IsTrue(ok))
	}
}

// kindIdle is a structure of the tests that says nothing of its frames.
const kindIdle = 0x49444c45

func init() {
	RegisterKind(Kind{ID: kindIdle, Name: "idle", Walk: func(*Pool, Root, func(uint32, Claim) error) error { return nil }})
}
