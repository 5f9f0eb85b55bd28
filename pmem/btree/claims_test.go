package btree_test

import (
	"fmt"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/btree"
)

// Two trees may have values in the same frames, and no node.
func TestTreesClaimNodes(t *testing.T) {
	for _, keys := range []int{1, 300} {
		p := memory(t, 1<<20, 2048)
		var f [1]uint32
		p.Alloc(f[:])
		v := btree.Value{Frags: []pmem.Fragment{{Frame: f[0], Len: 100}}, Len: 100}
		v.Sum = btree.SumOf(p, v.Frags)
		for _, name := range []string{"a", "b"} {
			tr, err := btree.Create(p, name, btree.Options{})
			qt.Assert(t, qt.IsNil(err))
			for i := range keys {
				_, err := tr.Put(fmt.Appendf(nil, "key%04d", i), &v)
				qt.Assert(t, qt.IsNil(err))
			}
			qt.Assert(t, qt.IsNil(tr.Commit()))
			tr.Close()
		}
		open := func() []error {
			q, err := pmem.OpenMemory(append([]byte(nil), p.Mem()...), nil, pmem.Options{ReadOnly: true})
			qt.Assert(t, qt.IsNil(err))
			return q.Problems()
		}
		qt.Assert(t, qt.HasLen(open(), 0))
		r, _ := p.Root("a")
		qt.Assert(t, qt.IsNil(p.SetRoot("c", r)))
		found := open()
		qt.Assert(t, qt.HasLen(found, 1))
		qt.Assert(t, qt.ErrorIs(found[0], pmem.ErrDamaged))
		qt.Assert(t, qt.ErrorMatches(found[0], fmt.Sprintf(`root "c" \(tree\): damaged pool: it owns frame %d alone, and root "a" \(tree\) refers to that as well`, r.Frame)))
	}
}
