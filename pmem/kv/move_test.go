package kv_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/kv"
)

// everything reads a store.
func everything(t testing.TB, s *kv.Store) map[string]string {
	found := map[string]string{}
	var keys []string
	qt.Assert(t, qt.IsNil(s.Scan(nil, nil, 0, func(k []byte) bool { keys = append(keys, string(k)); return true })))
	for _, k := range keys {
		v, ok := get(t, s, k)
		qt.Assert(t, qt.IsTrue(ok))
		found[k] = v
	}
	return found
}

// mutate makes n changes of every shape.
func mutate(t testing.TB, s *kv.Store, rng *rand.Rand, want map[string]string, n int) {
	for range n {
		k := fmt.Sprintf("%0*d", 1+rng.IntN(2)*199, rng.IntN(60))
		if rng.IntN(5) == 0 {
			_, err := s.Delete([]byte(k))
			qt.Assert(t, qt.IsNil(err))
			delete(want, k)
			continue
		}
		b := make([]byte, []int{0, 64, 65, 300, 2048, 5000, 70000}[rng.IntN(7)])
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		want[k] = string(b)
		if len(b) > 100 && rng.IntN(2) == 0 {
			// As received: fragments in frames with a head in front of each.
			qt.Assert(t, qt.IsNil(putFront(s, rng, k, string(b))))
			continue
		}
		_, err := s.PutBytes([]byte(k), b)
		qt.Assert(t, qt.IsNil(err))
	}
	qt.Assert(t, qt.IsNil(s.Commit()))
}

// A store that was dumped and restored, into frames of another size and a log
// of another length, holds the same and goes on to work, whether its content
// was in the tree, in the log, or in both.
func TestDumpRestore(t *testing.T) {
	for i, state := range []struct {
		name         string
		before, then int // changes before and after a checkpoint
	}{{"tree", 300, 0}, {"log", 0, 100}, {"both", 200, 100}, {"nothing", 0, 0}} {
		for _, from := range []int{2048, 4096} {
			t.Run(fmt.Sprintf("%s/%d", state.name, from), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(uint64(i), uint64(from)))
				want := map[string]string{}
				p, err := pmem.NewMemory("kv-test", pmem.Options{Size: 48 << 20, FrameSize: from})
				qt.Assert(t, qt.IsNil(err))
				defer p.Close()
				s, err := kv.Open(p, kv.Options{Checkpoint: 1 << 30})
				qt.Assert(t, qt.IsNil(err))
				mutate(t, s, rng, want, state.before)
				if state.before > 0 {
					qt.Assert(t, qt.IsNil(s.Checkpoint()))
				}
				mutate(t, s, rng, want, state.then)
				qt.Assert(t, qt.DeepEquals(everything(t, s), want))
				var archive bytes.Buffer
				qt.Assert(t, qt.IsNil(p.Dump(&archive, nil)))

				dir, err := os.MkdirTemp("/dev/shm", "kv-test-")
				qt.Assert(t, qt.IsNil(err))
				defer os.RemoveAll(dir)
				for _, o := range []pmem.Options{
					{Size: 64 << 20, FrameSize: 2048},
					{Size: 40 << 20, FrameSize: 4096, LogEntries: 5000},
				} {
					o.Overwrite = true
					path := filepath.Join(dir, "new")
					q, err := pmem.Restore(bytes.NewReader(archive.Bytes()), path, o)
					qt.Assert(t, qt.IsNil(err))
					again := func() *kv.Store {
						s, err := kv.Open(q, kv.Options{Verify: true})
						qt.Assert(t, qt.IsNil(err))
						return s
					}
					moved := again()
					qt.Assert(t, qt.DeepEquals(everything(t, moved), want))
					more := maps.Clone(want)
					mutate(t, moved, rng, more, 30)
					qt.Assert(t, qt.IsNil(moved.Close()))
					qt.Assert(t, qt.IsNil(q.Close()))
					q, err = pmem.Open(path, pmem.Options{})
					qt.Assert(t, qt.IsNil(err))
					moved = again()
					qt.Assert(t, qt.DeepEquals(everything(t, moved), more))
					qt.Assert(t, qt.IsNil(moved.Close()))
					res, err := q.Check(t.Context(), nil, func(err error) { t.Error(err) })
					qt.Assert(t, qt.IsNil(err))
					qt.Assert(t, qt.Equals(res.Problems, 0))
					q.Close()
				}
			})
		}
	}
}
