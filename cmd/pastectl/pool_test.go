package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/pmem"
)

// poolCommand runs `pastectl pool …` and returns its error in one sentence.
func poolCommand(args ...string) (stdout, failure string) {
	var out, errs bytes.Buffer
	cmd := newPoolCmd(env{stdout: &out, stderr: &errs})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	if err := cmd.Execute(); err != nil {
		return out.String(), sentence(err)
	}
	return out.String(), ""
}

func poolDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "pastectl-pool-test-")
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// filledPool makes a pool with the given records by way of the command.
func filledPool(t *testing.T, records ...string) string {
	t.Helper()
	path := filepath.Join(poolDir(t), "x.pool")
	out, failure := poolCommand("create", path, "--size", "1MiB")
	qt.Assert(t, qt.Equals(failure, ""))
	qt.Assert(t, qt.StringContains(out, "1.0 MiB on tmpfs"))
	p, err := pmem.Open(path, pmem.Options{})
	qt.Assert(t, qt.IsNil(err))
	defer p.Close()
	for _, r := range records {
		_, err := p.Log().AppendCopy([]byte(r))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(p.Log().Commit()))
	}
	return path
}

func TestPoolLog(t *testing.T) {
	long := strings.Repeat("0123456789", 500)
	path := filledPool(t, "first", "", long)
	out, failure := poolCommand("log", path)
	qt.Assert(t, qt.Equals(failure, ""))
	lines := strings.Split(strings.TrimSpace(out), "\n")
	qt.Assert(t, qt.HasLen(lines, 4))
	qt.Assert(t, qt.DeepEquals(strings.Fields(lines[1])[:3], []string{"1", "5", "ok"}))
	qt.Assert(t, qt.DeepEquals(strings.Fields(lines[2]), []string{"2", "0", "ok"}))
	qt.Assert(t, qt.HasLen(strings.Fields(lines[3]), 6)) // three fragments

	for i, want := range []string{"first", "", long} {
		out, failure = poolCommand("log", path, "--raw", "--record", strconv.Itoa(i+1))
		qt.Assert(t, qt.Equals(failure, ""))
		qt.Assert(t, qt.Equals(out, want))
	}

	out, failure = poolCommand("log", path, "--json")
	qt.Assert(t, qt.Equals(failure, ""))
	var doc struct {
		Records, Bad int
		Live         bool
		List         []logRecord
	}
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(out), &doc)))
	qt.Assert(t, qt.Equals(doc.Records, 3))
	qt.Assert(t, qt.Equals(doc.List[2].Length, int64(len(long))))
	qt.Assert(t, qt.Equals(doc.List[2].Checksum, "ok"))

	out, failure = poolCommand("log", path, "--verify")
	qt.Assert(t, qt.Equals(failure, ""))
	qt.Assert(t, qt.Equals(out, "3 records, 0 bad\n"))

	_, failure = poolCommand("log", path, "--record", "9", "--raw")
	qt.Assert(t, qt.StringContains(failure, "the log holds 1 to 3"))
}

func TestPoolLogBadChecksum(t *testing.T) {
	path := filledPool(t, "first", "second")
	b, err := os.ReadFile(path)
	qt.Assert(t, qt.IsNil(err))
	b[bytes.Index(b, []byte("second"))] ^= 1
	qt.Assert(t, qt.IsNil(os.WriteFile(path, b, 0o600)))
	for _, args := range [][]string{{"log", path}, {"log", path, "--verify"}, {"log", path, "--json"}, {"log", path, "--record", "2"}} {
		out, failure := poolCommand(args...)
		qt.Check(t, qt.StringContains(out, "BAD"))
		qt.Check(t, qt.StringContains(failure, path))
		qt.Check(t, qt.StringContains(failure, "checksum"))
	}
	out, failure := poolCommand("log", path, "--record", "1", "--raw")
	qt.Check(t, qt.Equals(out, "first"))
	qt.Check(t, qt.Equals(failure, ""))
}

func TestPoolOfALiveServer(t *testing.T) {
	path := filledPool(t, "first")
	w, err := pmem.Open(path, pmem.Options{})
	qt.Assert(t, qt.IsNil(err))
	defer w.Close()
	for _, sub := range []string{"log", "info"} {
		out, failure := poolCommand(sub, path)
		qt.Check(t, qt.Equals(failure, ""))
		qt.Check(t, qt.StringContains(out, "snapshot of a live pool: this process has it open"))
	}
	out, failure := poolCommand("log", path, "--record", "1", "--raw")
	qt.Check(t, qt.Equals(failure, ""))
	qt.Check(t, qt.Equals(out, "first"))
	_, failure = poolCommand("create", path, "--size", "1MiB", "--force")
	qt.Check(t, qt.StringContains(failure, "pool in use"))
	// What a writer changes is not damage.
	for _, args := range [][]string{{"check", path}, {"check", path, "--json"}} {
		out, failure = poolCommand(args...)
		qt.Check(t, qt.Equals(out, ""))
		qt.Check(t, qt.StringContains(failure, "pool in use: this process has "+path+" open"))
	}
}

func TestPoolInfo(t *testing.T) {
	path := filledPool(t, "first", "second")
	out, failure := poolCommand("info", path)
	qt.Assert(t, qt.Equals(failure, ""))
	qt.Assert(t, qt.StringContains(out, "2, from 1 to 2"))
	qt.Assert(t, qt.StringContains(out, "not a reboot or a power failure"))
	out, failure = poolCommand("info", path, "--json")
	qt.Assert(t, qt.Equals(failure, ""))
	var info poolInfo
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(out), &info)))
	qt.Assert(t, qt.Equals(info.Records, 2))
	qt.Assert(t, qt.Equals(info.LogFrames, 2))
	qt.Assert(t, qt.Equals(info.Size, 1<<20))
}

func TestPoolCreate(t *testing.T) {
	path := filledPool(t, "keep me")
	_, failure := poolCommand("create", path, "--size", "1MiB")
	qt.Assert(t, qt.StringContains(failure, "file exists: "+path))
	out, failure := poolCommand("create", path, "--size", "2M", "--frame-size", "4096", "--force", "--json")
	qt.Assert(t, qt.Equals(failure, ""))
	var info poolInfo
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(out), &info)))
	qt.Assert(t, qt.Equals(info.FrameSize, 4096))
	qt.Assert(t, qt.Equals(info.Records, 0))
}

// Whatever is wrong with the file: one sentence with its name.
func TestPoolBadFiles(t *testing.T) {
	good, err := os.ReadFile(filledPool(t, "first", "second", "third"))
	qt.Assert(t, qt.IsNil(err))
	random := bytes.Repeat([]byte("\x17\x99random"), 1<<17)
	changed := func(off int, v byte) []byte {
		b := bytes.Clone(good)
		b[off] = v
		return b
	}
	version := changed(8, 9)
	binary.LittleEndian.PutUint32(version[124:], crc32.Checksum(version[:124], crc32.MakeTable(crc32.Castagnoli)))
	path := filepath.Join(poolDir(t), "bad.pool")
	for name, tc := range map[string]struct {
		content []byte
		want    string
	}{
		"empty":     {nil, "is empty"},
		"zeros":     {make([]byte, 1<<20), "not a pool"},
		"random":    {random, "not a pool"},
		"version":   {version, "version 9"},
		"truncated": {good[:len(good)/2], "truncated pool"},
		"damaged":   {append(append(bytes.Clone(good[:64]), make([]byte, 4096)...), good[4160:]...), "damaged pool"},
		"log":       {changed(4*2048+2*8192+8, 7), "log entry 0"},
	} {
		t.Run(name, func(t *testing.T) {
			qt.Assert(t, qt.IsNil(os.WriteFile(path, tc.content, 0o600)))
			for _, args := range [][]string{{"info", path}, {"log", path}, {"log", path, "--json"}} {
				_, failure := poolCommand(args...)
				qt.Check(t, qt.StringContains(failure, path))
				qt.Check(t, qt.StringContains(failure, tc.want))
			}
		})
	}
}

func TestPoolBadPlacesAndFlags(t *testing.T) {
	dir := poolDir(t)
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"create", filepath.Join(dir, "a")}, "impossible pool size"},
		{[]string{"create", filepath.Join(dir, "a"), "--size", "4KiB"}, "impossible pool size"},
		{[]string{"create", filepath.Join(dir, "a"), "--size", "1TiB"}, "choose a smaller size"},
		{[]string{"create", filepath.Join(dir, "a"), "--size", "lots"}, "want a number of bytes"},
		{[]string{"create", filepath.Join(dir, "a")}, "impossible pool size: none is given"},
		{[]string{"create", filepath.Join(dir, "a"), "--size", "1MiB", "--frame-size", "1500"}, "2048 or 4096"},
		{[]string{"create"}, "missing argument FILE"},
		{[]string{"create", "/dev/null", "--size", "1MiB"}, "device-DAX"},
		{[]string{"create", "/proc/x.pool", "--size", "1MiB"}, "is on proc"},
		{[]string{"info", filepath.Join(dir, "absent")}, "no such file"},
		{[]string{"log", filepath.Join(dir, "absent")}, "no such file"},
		{[]string{"log", dir}, "is a directory"},
		{[]string{"log", filepath.Join(dir, "absent"), "--raw"}, "--raw needs --record"},
		{[]string{"bogus"}, "unknown command"},
	} {
		_, failure := poolCommand(tc.args...)
		qt.Check(t, qt.StringContains(failure, tc.want), qt.Commentf("%v", tc.args))
	}
	left, err := os.ReadDir(dir)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(left, 0))
}
