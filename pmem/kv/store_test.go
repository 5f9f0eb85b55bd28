package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/kv"
)

func memory(t testing.TB, size int64, entries int) *pmem.Pool {
	p, err := pmem.NewMemory("kv-test", pmem.Options{Size: size, LogEntries: entries})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() {
		qt.Check(t, qt.Equals(p.Misuses(), 0))
		p.Close()
	})
	return p
}

func get(t testing.TB, s *kv.Store, key string) (string, bool) {
	var v kv.Value
	ok, err := s.Get([]byte(key), &v)
	qt.Assert(t, qt.IsNil(err))
	if !ok {
		return "", false
	}
	defer s.Release(&v)
	return string(v.AppendTo(s.Pool(), nil)), true
}

// Readers and writers of several goroutines each find their own values, while
// checkpoints come and go.
func TestConcurrent(t *testing.T) {
	s, err := kv.Open(memory(t, 32<<20, 0), kv.Options{Verify: true, Checkpoint: 64})
	qt.Assert(t, qt.IsNil(err))
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			want := map[string]string{}
			var v kv.Value
			for range 400 {
				k := fmt.Sprintf("w%d-%d", w, rng.IntN(20))
				switch rng.IntN(4) {
				case 0:
					found, err := s.Delete([]byte(k))
					_, had := want[k]
					if err != nil || found != had {
						t.Errorf("delete %s: %v, %v", k, found, err)
					}
					delete(want, k)
				case 1, 2:
					want[k] = strings.Repeat(k, rng.IntN(400))
					if _, err := s.PutBytes([]byte(k), []byte(want[k])); err != nil {
						t.Error(err)
					}
				}
				if rng.IntN(5) == 0 {
					if err := s.Commit(); err != nil {
						t.Error(err)
					}
				}
				found, err := s.Get([]byte(k), &v)
				if err != nil {
					t.Error(err)
				}
				got := string(v.AppendTo(s.Pool(), nil))
				if wanted, had := want[k]; found != had || found && got != wanted {
					t.Errorf("get %s: %v, %d bytes; want %v, %d bytes", k, found, len(got), had, len(wanted))
				}
				if found {
					s.Release(&v)
				}
				n := 0
				if err := s.Scan(fmt.Appendf(nil, "w%d-", w), nil, 0, func([]byte) bool { n++; return true }); err != nil || n != len(want) {
					t.Errorf("scan: %d keys, want %d: %v", n, len(want), err)
				}
			}
		}()
	}
	wg.Wait()
	qt.Assert(t, qt.Not(qt.Equals(s.Stats().Checkpoints, 0)))
	qt.Assert(t, qt.IsNil(s.Close()))
	qt.Assert(t, qt.IsNil(s.Close()))
	_, err = s.PutBytes([]byte("k"), nil)
	qt.Assert(t, qt.ErrorIs(err, pmem.ErrClosed))
}

// With the pool full everything stays readable, deletes go on, and room comes
// back; with the log full a checkpoint makes room at once.
func TestFull(t *testing.T) {
	p := memory(t, 2<<20, 40)
	s, err := kv.Open(p, kv.Options{})
	qt.Assert(t, qt.IsNil(err))
	value := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 1500) }
	for round := range 3 {
		n := 0
		for ; ; n++ {
			if _, err = s.PutBytes(fmt.Append(nil, n), value(n)); err != nil {
				break
			}
			if n%7 == 0 {
				qt.Assert(t, qt.IsNil(s.Commit()))
			}
		}
		qt.Assert(t, qt.ErrorIs(err, pmem.ErrFull))
		qt.Assert(t, qt.IsTrue(n > 300), qt.Commentf("round %d: %d", round, n))
		for i := range n {
			got, ok := get(t, s, fmt.Sprint(i))
			qt.Assert(t, qt.IsTrue(ok && got == string(value(i))), qt.Commentf("key %d: %v, %d bytes", i, ok, len(got)))
		}
		for i := range n {
			found, err := s.Delete(fmt.Append(nil, i))
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsTrue(found))
		}
	}
	qt.Assert(t, qt.Not(qt.Equals(s.Stats().Stalls, 0)))
	qt.Assert(t, qt.IsNil(s.Close()))
}

func TestLimits(t *testing.T) {
	p := memory(t, 4<<20, 40)
	s, err := kv.Open(p, kv.Options{})
	qt.Assert(t, qt.IsNil(err))
	_, err = s.PutBytes(make([]byte, kv.MaxKey+1), nil)
	qt.Assert(t, qt.ErrorIs(err, kv.ErrKeyTooLong))
	_, err = s.Delete(make([]byte, kv.MaxKey+1))
	qt.Assert(t, qt.ErrorIs(err, kv.ErrKeyTooLong))
	_, err = s.Put([]byte("k"), &kv.Value{Inline: make([]byte, 1000)}, 0)
	qt.Assert(t, qt.ErrorIs(err, kv.ErrValueTooLong))
	_, err = s.PutBytes([]byte("k"), make([]byte, int(p.LogEntries()+2)*p.FrameSize()))
	qt.Assert(t, qt.ErrorIs(err, kv.ErrValueTooLong))
	_, err = s.Put([]byte("k"), &kv.Value{Frags: []pmem.Fragment{{Frame: 1, Len: 100}}}, 0)
	qt.Assert(t, qt.ErrorIs(err, pmem.ErrFragment))
	found, err := s.Delete([]byte("none"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsFalse(found))
	qt.Assert(t, qt.IsNil(s.Close()))
}

// A log that is somebody else's is left alone.
func TestForeignLog(t *testing.T) {
	p := memory(t, 4<<20, 0)
	_, err := p.Log().AppendCopy([]byte("a body that a web server stored, some bytes long"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(p.Log().Commit()))
	_, err = kv.Open(p, kv.Options{})
	qt.Assert(t, qt.ErrorIs(err, kv.ErrForeign))
	_, ok := p.Root(kv.RootName)
	qt.Assert(t, qt.IsFalse(ok))
}

// FuzzOpen damages a pool with a store in its log and its tree: opening and
// reading it may fail, and must not panic or find values that nobody put.
func FuzzOpen(f *testing.F) {
	mem := make([]byte, 512<<10)
	p, err := pmem.FormatMemory(mem, nil, pmem.Options{FrameSize: 2048, LogEntries: 64})
	qt.Assert(f, qt.IsNil(err))
	s, err := kv.Open(p, kv.Options{Reserve: 8})
	qt.Assert(f, qt.IsNil(err))
	want := map[string]bool{}
	put := func(i int) {
		v := bytes.Repeat([]byte{byte('a' + i)}, i*40)
		want[string(v)] = true
		_, err := s.PutBytes(fmt.Append(nil, "key", i), v)
		qt.Assert(f, qt.IsNil(err))
	}
	for i := range 20 {
		put(i)
	}
	qt.Assert(f, qt.IsNil(s.Checkpoint()))
	for i := range 10 {
		put(i + 15)
	}
	qt.Assert(f, qt.IsNil(s.Commit()))
	sound := bytes.Clone(mem)
	// What is never read needs no damage.
	var inUse []uint32
	for i := range p.Frames() {
		if i < p.FirstFrame() || p.Refs(i) > 0 {
			inUse = append(inUse, i)
		}
	}
	fs := uint32(p.FrameSize())
	f.Add(uint32(4096*2), []byte{1})
	f.Add(uint32(100<<10), []byte{255, 255})
	f.Fuzz(func(t *testing.T, at uint32, b []byte) {
		copy(mem, sound)
		if len(b) > 64 {
			b = b[:64]
		}
		at %= uint32(len(inUse)) * fs
		copy(mem[inUse[at/fs]*fs+at%fs:], b)
		p, err := pmem.OpenMemory(mem, nil, pmem.Options{NoFlush: true})
		if err != nil {
			return
		}
		s, err := kv.Open(p, kv.Options{Reserve: 8, Verify: true})
		if err != nil {
			return
		}
		var v kv.Value
		for i := range 25 {
			ok, err := s.Get(fmt.Append(nil, "key", i), &v)
			switch {
			case errors.Is(err, pmem.ErrChecksum), errors.Is(err, pmem.ErrDamaged):
			case err != nil:
				t.Fatal(err)
			case !ok:
				t.Fatalf("key%d is gone and nobody said so", i)
			case !want[string(v.AppendTo(p, nil))]:
				t.Fatalf("key%d has a value that was never put", i)
			default:
				s.Release(&v)
			}
		}
		_ = s.Close()
	})
}
