package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/pmem"
)

func TestPoolCheck(t *testing.T) {
	path := filledPool(t, "first", "second", "third")
	out, failure := poolCommand("check", path)
	qt.Assert(t, qt.Equals(failure, ""))
	qt.Assert(t, qt.StringContains(out, "clean; 3 records"))

	b, err := os.ReadFile(path)
	qt.Assert(t, qt.IsNil(err))
	b[bytes.Index(b, []byte("second"))] ^= 1
	b[100] ^= 1
	qt.Assert(t, qt.IsNil(os.WriteFile(path, b, 0o600)))
	out, failure = poolCommand("check", path)
	qt.Assert(t, qt.StringContains(failure, "2 problems found"))
	qt.Assert(t, qt.StringContains(out, "superblock, copy 1"))
	qt.Assert(t, qt.StringContains(out, "record 2, fragment 0 in frame"))
	out, failure = poolCommand("check", path, "--json")
	qt.Assert(t, qt.StringContains(failure, path))
	var c poolCheck
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(out), &c)))
	qt.Assert(t, qt.HasLen(c.Problems, 2))
	qt.Assert(t, qt.Equals(c.Records, 3))
	qt.Assert(t, qt.Equals(c.UsedFrames, 3))
}

func TestPoolGrow(t *testing.T) {
	path := filledPool(t, "first")
	out, failure := poolCommand("grow", path, "--size", "2MiB")
	qt.Assert(t, qt.Equals(failure, ""))
	qt.Assert(t, qt.StringContains(out, "has 2.0 MiB now"))
	_, failure = poolCommand("grow", path, "--size", "1MiB")
	qt.Assert(t, qt.StringContains(failure, "cannot become smaller"))
	_, failure = poolCommand("grow", path)
	qt.Assert(t, qt.StringContains(failure, "size"))
	out, failure = poolCommand("log", path, "--record", "1", "--raw")
	qt.Assert(t, qt.Equals(failure, ""))
	qt.Assert(t, qt.Equals(out, "first"))
	_, failure = poolCommand("check", path)
	qt.Assert(t, qt.Equals(failure, ""))
}

func TestPoolDumpRestore(t *testing.T) {
	long := strings.Repeat("0123456789", 1000)
	path := filledPool(t, "first", "", long)
	archive, failure := poolCommand("dump", path)
	qt.Assert(t, qt.Equals(failure, ""))
	dir := poolDir(t)
	file := filepath.Join(dir, "archive")
	qt.Assert(t, qt.IsNil(os.WriteFile(file, []byte(archive), 0o600)))
	moved := filepath.Join(dir, "moved.pool")
	out, failure := poolCommand("restore", file, moved, "--size", "3MiB", "--frame-size", "4096")
	qt.Assert(t, qt.Equals(failure, ""))
	qt.Assert(t, qt.StringContains(out, "3 records, 0 structures"))
	out, failure = poolCommand("log", moved, "--record", "3", "--raw")
	qt.Assert(t, qt.Equals(failure, ""))
	qt.Assert(t, qt.Equals(out, long))
	again, failure := poolCommand("dump", moved)
	qt.Assert(t, qt.Equals(failure, ""))
	qt.Assert(t, qt.IsTrue(again == archive))

	_, failure = poolCommand("restore", file, moved, "--size", "3MiB")
	qt.Assert(t, qt.StringContains(failure, "file exists: "+moved))
	qt.Assert(t, qt.IsNil(os.WriteFile(file, []byte(archive[:len(archive)/2]), 0o600)))
	_, failure = poolCommand("restore", file, filepath.Join(dir, "other"), "--size", "3MiB")
	qt.Assert(t, qt.StringContains(failure, "cut off"))
	left, err := os.ReadDir(dir)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(left, 2))

	w, err := pmem.Open(path, pmem.Options{})
	qt.Assert(t, qt.IsNil(err))
	defer w.Close()
	_, failure = poolCommand("dump", path)
	qt.Assert(t, qt.StringContains(failure, "stop that first"))
}

// A pool on an ordinary disk works, and says what that costs.
func TestPoolOnDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.pool")
	out, failure := poolCommand("create", path, "--size", "1MiB")
	qt.Assert(t, qt.Equals(failure, ""))
	if !strings.Contains(out, "tmpfs") {
		qt.Assert(t, qt.StringContains(out, "on file (survives the process and the machine"))
		qt.Assert(t, qt.StringContains(out, "every commit writes to the file and waits for the disk"))
	}
	_, failure = poolCommand("check", path)
	qt.Assert(t, qt.Equals(failure, ""))
}
