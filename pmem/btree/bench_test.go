package btree_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/btree"
)

// benchTree has n keys of 16 bytes.
func benchTree(b *testing.B, n int) (*btree.Tree, [][]byte, *btree.Value) {
	p := memory(b, 512<<20, 2048)
	tr, err := btree.Create(p, "t", btree.Options{})
	qt.Assert(b, qt.IsNil(err))
	var f [1]uint32
	p.Alloc(f[:])
	v := &btree.Value{Frags: []pmem.Fragment{{Frame: f[0], Len: 1024}}, Len: 1024}
	v.Sum = btree.SumOf(p, v.Frags)
	keys := make([][]byte, n)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "key:%012d", i)
		_, err := tr.Put(keys[i], v)
		qt.Assert(b, qt.IsNil(err))
	}
	qt.Assert(b, qt.IsNil(tr.Commit()))
	return tr, keys, v
}

func BenchmarkGet(b *testing.B) {
	tr, keys, _ := benchTree(b, 200000)
	rng := rand.New(rand.NewPCG(1, 2))
	var v btree.Value
	for b.Loop() {
		if ok, err := tr.Get(keys[rng.IntN(len(keys))], &v); !ok || err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	tr, keys, v := benchTree(b, 200000)
	rng := rand.New(rand.NewPCG(1, 2))
	for n := 0; b.Loop(); n++ {
		if _, err := tr.Put(keys[rng.IntN(len(keys))], v); err != nil {
			b.Fatal(err)
		}
		if n%8192 == 8191 {
			if err := tr.Commit(); err != nil {
				b.Fatal(err)
			}
		}
	}
}
