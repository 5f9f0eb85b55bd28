package kv_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/kv"
)

// A pool's file that is cut off under a store is an error of whatever the
// store is asked.
func TestMemoryGone(t *testing.T) {
	long := bytes.Repeat([]byte("long"), 1000)
	var v kv.Value
	for _, op := range []struct {
		name string
		do   func(s *kv.Store) error
	}{
		{"Get", func(s *kv.Store) error { return second(s.Get([]byte("key1"), &v)) }},
		{"Has", func(s *kv.Store) error {
			_, _, err := s.Has([]byte("key1"))
			return err
		}},
		{"Scan", func(s *kv.Store) error { return s.Scan(nil, nil, 0, func([]byte) bool { return true }) }},
		{"Put", func(s *kv.Store) error { return second(s.Put([]byte("key"), &kv.Value{Inline: []byte("v")}, 0)) }},
		{"PutBytes, small", func(s *kv.Store) error { return second(s.PutBytes([]byte("key"), long[:100])) }},
		{"PutBytes", func(s *kv.Store) error { return second(s.PutBytes([]byte("key"), long)) }},
		{"Delete", func(s *kv.Store) error { return second(s.Delete([]byte("key1"))) }},
		{"Commit", func(s *kv.Store) error { return s.Commit() }},
		{"Checkpoint", func(s *kv.Store) error { return s.Checkpoint() }},
		{"MakeRoom", func(s *kv.Store) error { return second(s.MakeRoom()) }},
		{"Close", func(s *kv.Store) error { return s.Close() }},
		{"Open", func(s *kv.Store) error { return second(kv.Open(s.Pool(), kv.Options{})) }},
	} {
		path, s := storeFile(t)
		qt.Assert(t, qt.IsNil(second(s.PutBytes([]byte("staged"), long))))
		qt.Assert(t, qt.IsNil(os.Truncate(path, 0)))
		err := op.do(s)
		qt.Check(t, qt.ErrorIs(err, pmem.ErrTruncated), qt.Commentf("%s", op.name))
		qt.Check(t, qt.StringContains(fmt.Sprint(err), path), qt.Commentf("%s", op.name))
		_ = s.Close()
	}

	// A value that was found and then went away.
	path, p := storeFile(t)
	qt.Assert(t, qt.IsNil(second(p.Get([]byte("key2"), &v))))
	qt.Assert(t, qt.IsNil(os.Truncate(path, 0)))
	qt.Assert(t, qt.ErrorIs(v.Verify(p.Pool()), pmem.ErrTruncated))
}

func second[T any](_ T, err error) error { return err }

func storeFile(t testing.TB) (string, *kv.Store) {
	dir, err := os.MkdirTemp("/dev/shm", "kv-test-")
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "p.pool")
	p, err := pmem.Create(path, pmem.Options{Size: 1 << 20})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { p.Close() })
	s, err := kv.Open(p, kv.Options{Verify: true})
	qt.Assert(t, qt.IsNil(err))
	for i := range 10 {
		qt.Assert(t, qt.IsNil(second(s.PutBytes(fmt.Append(nil, "key", i), make([]byte, i*50)))))
	}
	qt.Assert(t, qt.IsNil(s.Commit()))
	return path, s
}
