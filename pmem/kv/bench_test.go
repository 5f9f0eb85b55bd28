package kv_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/kv"
)

// BenchmarkMixed puts and gets values of 1 KB as a server does: in batches of
// 50 with one commit each.
func BenchmarkMixed(b *testing.B) {
	for _, puts := range []int{0, 10, 50, 100} {
		b.Run(fmt.Sprintf("put=%d%%", puts), func(b *testing.B) {
			p, err := pmem.NewMemory("kv-bench", pmem.Options{Size: 1 << 30})
			qt.Assert(b, qt.IsNil(err))
			defer p.Close()
			s, err := kv.Open(p, kv.Options{Verify: true})
			qt.Assert(b, qt.IsNil(err))
			const n = 50000
			keys := make([][]byte, n)
			rng := rand.New(rand.NewPCG(1, 2))
			put := func(i int) {
				var f [1]uint32
				if p.Alloc(f[:]) == 0 {
					b.Fatal("full")
				}
				v := kv.Value{Frags: []pmem.Fragment{{Frame: f[0], Off: 200, Len: 1100}}, Pre: 76}
				if _, err := s.Put(keys[i], &v, 130); err != nil {
					b.Fatal(err)
				}
				p.Unref(f[0])
			}
			for i := range keys {
				keys[i] = fmt.Appendf(nil, "key:%012d", i)
				put(i)
				if i%50 == 0 {
					qt.Assert(b, qt.IsNil(s.Commit()))
				}
			}
			var v kv.Value
			i := 0
			for b.Loop() {
				k := rng.IntN(n)
				if rng.IntN(100) < puts {
					put(k)
				} else {
					if ok, err := s.Get(keys[k], &v); !ok || err != nil {
						b.Fatal(err)
					}
					s.Release(&v)
				}
				if i++; i%50 == 0 {
					if err := s.Commit(); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
