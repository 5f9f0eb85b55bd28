package btree_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/btree"
)

var goneKey = []byte("key0100")

// memoryOps are what touches a tree's memory.
var memoryOps = []struct {
	name   string
	writes bool
	do     func(tr *btree.Tree) error
}{
	{"Get", false, func(tr *btree.Tree) error {
		var v btree.Value
		_, err := tr.Get(goneKey, &v)
		return err
	}},
	{"Get of a snapshot", false, func(tr *btree.Tree) error {
		var v btree.Value
		s := tr.Snapshot()
		defer s.Close()
		_, err := s.Get(goneKey, &v)
		return err
	}},
	{"Ascend", false, func(tr *btree.Tree) error { return tr.Ascend(nil, func(btree.Entry) bool { return true }) }},
	{"Descend", false, func(tr *btree.Tree) error { return tr.Descend(nil, func(btree.Entry) bool { return true }) }},
	{"Check", false, func(tr *btree.Tree) error {
		r, _ := tr.Pool().Root("t")
		return btree.Check(tr.Pool(), "t", r, func(err error) error { return err })
	}},
	{"Walk", false, func(tr *btree.Tree) error {
		r, _ := tr.Pool().Root("t")
		return btree.Walk(tr.Pool(), r, func(uint32) error { return nil })
	}},
	{"Dump", false, func(tr *btree.Tree) error {
		r, _ := tr.Pool().Root("t")
		return btree.Dump(tr.Pool(), "t", r, io.Discard)
	}},
	{"Put", false, func(tr *btree.Tree) error {
		_, err := tr.Put(goneKey, &btree.Value{Inline: []byte("x")})
		return err
	}},
	{"Delete", false, func(tr *btree.Tree) error {
		_, err := tr.Delete(goneKey)
		return err
	}},
	{"Commit", true, func(tr *btree.Tree) error { return tr.Commit() }},
	{"Create", false, func(tr *btree.Tree) error {
		_, err := btree.Create(tr.Pool(), "u", btree.Options{})
		return err
	}},
}

// A pool's file that is cut off under a tree is an error of whatever the tree
// is asked, and a change that it interrupts is the tree's end.
func TestMemoryGone(t *testing.T) {
	for _, op := range memoryOps {
		path, tr := treeFile(t)
		qt.Assert(t, qt.IsNil(put(tr, "key0500", nil, 0))) // something for Commit
		qt.Assert(t, qt.IsNil(os.Truncate(path, 0)))
		err := op.do(tr)
		qt.Check(t, qt.ErrorIs(err, pmem.ErrTruncated), qt.Commentf("%s", op.name))
		qt.Check(t, qt.StringContains(err.Error(), path), qt.Commentf("%s", op.name))
		if op.writes {
			_, err = tr.Put(goneKey, &btree.Value{Inline: []byte("x")})
			qt.Check(t, qt.ErrorIs(err, pmem.ErrTruncated), qt.Commentf("after %s", op.name))
		}
	}

	// The same between two entries, and in the value that an entry leads to.
	path, tr := treeFile(t)
	var v btree.Value
	found, err := tr.Get([]byte("key0007"), &v)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(found && len(v.Frags) > 0), qt.Commentf("%v %+v", found, v))
	n := 0
	err = tr.Ascend(nil, func(e btree.Entry) bool {
		qt.Check(t, qt.IsNil(os.Truncate(path, 0)))
		n++
		e.Value(&v)
		return len(e.Key()) > 0
	})
	qt.Assert(t, qt.ErrorIs(err, pmem.ErrTruncated))
	qt.Assert(t, qt.Equals(n, 1))
	path, tr = treeFile(t)
	_, err = tr.Get([]byte("key0007"), &v)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.Truncate(path, 0)))
	qt.Assert(t, qt.ErrorIs(v.Verify(tr.Pool()), pmem.ErrTruncated))
	_, err = v.WriteTo(tr.Pool(), io.Discard)
	qt.Assert(t, qt.IsNil(err)) // nobody looked at it
	_, err = v.WriteTo(tr.Pool(), new(copyWriter))
	qt.Assert(t, qt.ErrorIs(err, pmem.ErrTruncated))
}

type copyWriter []byte

func (c *copyWriter) Write(b []byte) (int, error) {
	*c = append(*c, b...)
	return len(b), nil
}

// treeFile makes a pool with a committed tree in a file.
func treeFile(t testing.TB) (string, *btree.Tree) {
	dir, err := os.MkdirTemp("/dev/shm", "btree-test-")
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "p.pool")
	p, err := pmem.Create(path, pmem.Options{Size: 4 << 20, LogEntries: 64})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { p.Close() })
	tr, err := btree.Create(p, "t", btree.Options{})
	qt.Assert(t, qt.IsNil(err))
	for i := range 200 {
		b := make([]byte, i%50)
		qt.Assert(t, qt.IsNil(put(tr, fmt.Sprintf("key%04d", i), b, 5*(i%20/7))))
	}
	qt.Assert(t, qt.IsNil(tr.Commit()))
	return path, tr
}

// A panic of the caller's goes on through a scan.
func TestScanPassesOn(t *testing.T) {
	_, tr := treeFile(t)
	qt.Assert(t, qt.PanicMatches(func() {
		tr.Ascend(nil, func(btree.Entry) bool { panic("mine") })
	}, "mine"))
	qt.Assert(t, qt.IsNil(put(tr, "key", nil, 0)))
}
