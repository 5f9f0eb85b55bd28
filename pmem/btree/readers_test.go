package btree_test

import (
	"bytes"
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

// A node that contradicts itself under a right checksum is damage to whoever is
// to change it, and stays as it is.
func TestDamagedNodeIsNotChanged(t *testing.T) {
	for _, d := range []struct {
		what string
		at   int
		b    []byte
	}{
		{"a cell in the free space", 78, []byte{0xf2, 0x04, 0xf2, 0x04, 1, 1, 0}},
		{"two slots with one cell", 32, []byte{0, 7, 0, 7}},
		{"no cells", 22, []byte{0, 0}},
		{"a heap that is too large", 24, []byte{100, 0}},
		{"removed bytes that were not", 26, []byte{100, 0}},
		{"of a commit that has not been", 8, []byte{3, 0, 0, 0, 0, 0, 0, 0}},
	} {
		mem := make([]byte, 400<<10)
		p, err := pmem.FormatMemory(mem, nil, pmem.Options{FrameSize: 2048, LogEntries: 32})
		qt.Assert(t, qt.IsNil(err))
		tr, err := btree.Create(p, "t", btree.Options{Reserve: 8})
		qt.Assert(t, qt.IsNil(err))
		for i := range 150 {
			qt.Assert(t, qt.IsNil(put(tr, fmt.Sprintf("key%04d", i), make([]byte, i%60), 5*(i%30/29))))
		}
		qt.Assert(t, qt.IsNil(tr.Commit()))
		r, _ := p.Root("t")
		tr, err = btree.Open(p, "t", btree.Options{Reserve: 8})
		qt.Assert(t, qt.IsNil(err))
		leaf := p.Frame(r.Frame + 1)
		copy(leaf[d.at:], d.b)
		btree.Reseal(p, r.Frame+1)
		before, told := bytes.Clone(leaf), 0
		for i := range 150 {
			_, err := tr.Put(fmt.Appendf(nil, "key%04d", i), &btree.Value{Inline: make([]byte, 60)})
			if err == nil {
				_, err = tr.Delete(fmt.Appendf(nil, "key%04d", i))
			}
			if err != nil {
				qt.Assert(t, qt.ErrorIs(err, pmem.ErrDamaged), qt.Commentf("%s, key %d", d.what, i))
				told++
			}
		}
		qt.Check(t, qt.IsTrue(told > 30), qt.Commentf("%s: told of %d keys", d.what, told))
		qt.Check(t, qt.DeepEquals(leaf, before), qt.Commentf("%s", d.what))
	}
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
	var one [1]uint32
	p.Alloc(one[:])
	long := &btree.Value{Len: 600, Frags: make([]pmem.Fragment, 600)} // in three frames
	for i := range long.Frags {
		long.Frags[i] = pmem.Fragment{Frame: one[0], Off: uint16(i), Len: 1}
	}
	_, err = tr.Put([]byte("key0070"), long)
	qt.Assert(f, qt.IsNil(err))
	qt.Assert(f, qt.IsNil(tr.Commit()))
	var parts []uint32 // nodes, and frames with fragments of values
	root, _ := p.Root("t")
	qt.Assert(f, qt.IsNil(btree.Walk(p, root, func(frame uint32) error {
		if b := p.Frame(frame); b[0] == 'P' && b[1] == 'T' && b[2] == 'T' {
			parts = append(parts, frame)
		}
		return nil
	})))
	qt.Assert(f, qt.HasLen(parts, 9))
	mem := make([]byte, len(sound))
	f.Fuzz(func(t *testing.T, at uint16, b []byte, seal bool) {
		copy(mem, sound)
		p, err := pmem.OpenMemory(mem, nil, pmem.Options{NoFlush: true})
		qt.Assert(t, qt.IsNil(err))
		tr, err := btree.Open(p, "t", btree.Options{Reserve: 8})
		qt.Assert(t, qt.IsNil(err))
		r, _ := p.Root("t")
		frame := parts[int(at)%len(parts)]
		n := p.Frame(frame)
		copy(n[int(at)/len(parts)%len(n):], b)
		if seal {
			btree.Reseal(p, frame)
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
		for i := range 60 {
			_, _ = tr.Delete(fmt.Appendf(nil, "key%04d", i*7))
			_, _ = tr.Put(fmt.Appendf(nil, "key%04d", i*5), &btree.Value{Inline: bytes.Repeat([]byte{1}, i)})
		}
		_ = tr.Commit()
	})
}
