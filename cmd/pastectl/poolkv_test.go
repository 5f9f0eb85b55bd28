package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/kv"
)

// The pool of a key-value store moves to other frames with all of its keys,
// those included that only its log has.
func TestPoolDumpRestoreKV(t *testing.T) {
	dir := poolDir(t)
	path := filepath.Join(dir, "kv.pool")
	_, failure := poolCommand("create", path, "--size", "8MiB")
	qt.Assert(t, qt.Equals(failure, ""))
	value := func(i int) string { return strings.Repeat(fmt.Sprint(i, " "), i*i*3) }
	const keys = 40
	p, err := pmem.Open(path, pmem.Options{})
	qt.Assert(t, qt.IsNil(err))
	s, err := kv.Open(p, kv.Options{})
	qt.Assert(t, qt.IsNil(err))
	for i := range keys {
		_, err := s.PutBytes(fmt.Append(nil, "key", i), []byte(value(i)))
		qt.Assert(t, qt.IsNil(err))
		if i == keys/2 {
			qt.Assert(t, qt.IsNil(s.Checkpoint()))
		}
	}
	_, err = s.Delete([]byte("key3"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(s.Commit()))
	qt.Assert(t, qt.IsNil(p.Close())) // and not the store: as after kill -9

	archive, failure := poolCommand("dump", path)
	qt.Assert(t, qt.Equals(failure, ""))
	file, moved := filepath.Join(dir, "archive"), filepath.Join(dir, "moved.pool")
	qt.Assert(t, qt.IsNil(os.WriteFile(file, []byte(archive), 0o600)))
	out, failure := poolCommand("restore", file, moved, "--size", "6MiB", "--frame-size", "4096")
	qt.Assert(t, qt.Equals(failure, ""))
	qt.Assert(t, qt.StringContains(out, fmt.Sprintf("%d records, 2 structures", keys-keys/2)))
	_, failure = poolCommand("check", moved)
	qt.Assert(t, qt.Equals(failure, ""))

	q, err := pmem.Open(moved, pmem.Options{})
	qt.Assert(t, qt.IsNil(err))
	defer q.Close()
	s, err = kv.Open(q, kv.Options{Verify: true})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(s.Len(), keys-1))
	for i := range keys {
		var v kv.Value
		found, err := s.Get(fmt.Append(nil, "key", i), &v)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(found, i != 3))
		if found {
			qt.Assert(t, qt.Equals(string(v.AppendTo(q, nil)), value(i)))
			s.Release(&v)
		}
	}
	qt.Assert(t, qt.IsNil(s.Close()))
}
