package btree_test

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/btree"
)

// Readers on snapshots see one commit each, whole, while a writer goes on and
// gives back what they do not need.
func TestReaders(t *testing.T) {
	p := memory(t, 8<<20, 2048)
	tr, err := btree.Create(p, "t", btree.Options{})
	qt.Assert(t, qt.IsNil(err))
	const keys = 300
	// Every commit gives every key the commit's number.
	write := func(n int) {
		for i := range keys {
			err := put(tr, fmt.Sprintf("key%04d", i), fmt.Appendf(nil, "%d", n), (i%4)*2)
			for errors.Is(err, pmem.ErrFull) { // a slow reader holds what is not needed any more
				runtime.Gosched()
				tr.Tidy(math.MaxInt)
				err = put(tr, fmt.Sprintf("key%04d", i), fmt.Appendf(nil, "%d", n), (i%4)*2)
			}
			qt.Assert(t, qt.IsNil(err))
		}
		tr.SetTag(uint64(n))
		qt.Assert(t, qt.IsNil(tr.Commit()))
	}
	write(0)
	var stop atomic.Bool
	var wg sync.WaitGroup
	var read atomic.Int64
	defer func() { stop.Store(true); wg.Wait() }() // the pool must not go away before them
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var v btree.Value
			for !stop.Load() {
				s := tr.Snapshot()
				want := fmt.Sprint(s.Tag())
				n := 0
				err := s.Ascend(nil, func(e btree.Entry) bool {
					e.Value(&v)
					n++
					return string(v.AppendTo(p, nil)) == want && v.Verify(p) == nil
				})
				s.Close()
				if err != nil || n != keys {
					t.Errorf("snapshot %s: %d keys, %v", want, n, err)
					return
				}
				read.Add(1)
			}
		}()
	}
	for n := 1; n < 60 || read.Load() < 60; n++ {
		write(n)
	}
	stop.Store(true)
	wg.Wait()
	qt.Assert(t, qt.IsNil(tr.Commit()))
	qt.Assert(t, qt.IsNil(tr.Commit())) // gives back what the last readers held
	tr.Close()
	qt.Assert(t, qt.Equals(used(p), reachable(t, p, "t")))
}

// What a snapshot reads stays when everything is deleted, until it is closed.
func TestSnapshotHolds(t *testing.T) {
	p := memory(t, 4<<20, 2048)
	tr, err := btree.Create(p, "t", btree.Options{})
	qt.Assert(t, qt.IsNil(err))
	for i := range 200 {
		qt.Assert(t, qt.IsNil(put(tr, fmt.Sprint("key", i), make([]byte, 500), 0)))
	}
	qt.Assert(t, qt.IsNil(tr.Commit()))
	s := tr.Snapshot()
	for i := range 200 {
		_, err := tr.Delete(fmt.Append(nil, "key", i))
		qt.Assert(t, qt.IsNil(err))
	}
	qt.Assert(t, qt.IsNil(tr.Commit()))
	held := used(p)
	qt.Assert(t, qt.IsTrue(held > 200), qt.Commentf("%d", held))
	_, ok := get(t, s, p, "key7")
	qt.Assert(t, qt.IsTrue(ok))
	_, ok = get(t, tr, p, "key7")
	qt.Assert(t, qt.IsFalse(ok))
	s.Close()
	s.Close()
	qt.Assert(t, qt.IsNil(tr.Commit()))
	tr.Close()
	qt.Assert(t, qt.Equals(used(p), 0))
}

// FuzzTree puts arbitrary bytes over a node, with a right checksum, and reads:
// there may be errors, never a panic.
func FuzzTree(f *testing.F) {
	f.Add(uint16(0), []byte{1}, true)
	f.Add(uint16(24), []byte{0, 0, 255, 255}, true)
	f.Add(uint16(32), []byte{255, 7, 0, 0}, false)
	sound := make([]byte, 400<<10)
	p, err := pmem.FormatMemory(sound, nil, pmem.Options{FrameSize: 2048, LogEntries: 32})
	qt.Assert(f, qt.IsNil(err))
	tr, err := btree.Create(p, "t", btree.Options{Reserve: 8})
	qt.Assert(f, qt.IsNil(err))
	for i := range 150 {
		qt.Assert(f, qt.IsNil(put(tr, fmt.Sprintf("key%04d", i), make([]byte, i%60), 5*(i%30/29))))
	}
	qt.Assert(f, qt.IsNil(tr.Commit()))
	mem := make([]byte, len(sound))
	f.Fuzz(func(t *testing.T, at uint16, b []byte, seal bool) {
		copy(mem, sound)
		p, err := pmem.OpenMemory(mem, nil, pmem.Options{NoFlush: true})
		qt.Assert(t, qt.IsNil(err))
		tr, err := btree.Open(p, "t", btree.Options{Reserve: 8})
		qt.Assert(t, qt.IsNil(err))
		r, _ := p.Root("t")
		n := p.Frame(r.Frame + uint32(at)%4)
		if n == nil {
			return
		}
		copy(n[int(at/4)%len(n):], b)
		if seal {
			btree.Reseal(p, n)
		}
		found := 0
		err = btree.Check(p, "t", r, func(error) error { found++; return nil })
		qt.Assert(t, qt.IsNil(err))
		_ = btree.Walk(p, r, func(uint32) error { return nil })
		var v btree.Value
		for i := range 150 {
			_, _ = tr.Get(fmt.Appendf(nil, "key%04d", i), &v)
		}
		_ = tr.Descend(nil, func(e btree.Entry) bool { e.Value(&v); return true })
		for i := range 20 {
			_, _ = tr.Delete(fmt.Appendf(nil, "key%04d", i*7))
			_, _ = tr.Put(fmt.Appendf(nil, "key%04d", i*5), &btree.Value{Inline: b[:min(len(b), 60)]})
		}
		_ = tr.Commit()
	})
}
