package pmemsim

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"
)

// outcomes collects what is found in file p after a power failure.
func outcomes(t *testing.T, work func(fs *FS, f *os.File, dir string)) map[string]bool {
	t.Helper()
	seen := map[string]bool{}
	for seed := range uint64(100) {
		dir := t.TempDir()
		path := filepath.Join(dir, "p")
		qt.Assert(t, qt.IsNil(os.WriteFile(path, []byte("old"), 0o600)))
		fs, err := NewFS(dir, rand.New(rand.NewPCG(seed, 1)))
		qt.Assert(t, qt.IsNil(err))
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		qt.Assert(t, qt.IsNil(err))
		work(fs, f, dir)
		f.Close()
		qt.Assert(t, qt.IsNil(fs.Restart(true)))
		b, err := os.ReadFile(path)
		if err != nil {
			b = []byte("none")
		}
		seen[string(b)] = true
		fs.Close()
	}
	return seen
}

func write(fs *FS, f *os.File, s string) {
	fs.Call("write", f, func() error { _, err := f.WriteAt([]byte(s), 0); return err })
}

func unsynced(call string) error { panic(call + " must not be made") }

func syncFile(fs *FS, f *os.File) error {
	return fs.Call("fdatasync", f, func() error { return unsynced("fdatasync") })
}

func TestFS(t *testing.T) {
	eio := errors.New("input/output error")
	for name, tc := range map[string]struct {
		work func(fs *FS, f *os.File, dir string)
		want []string
	}{
		"written": {func(fs *FS, f *os.File, _ string) { write(fs, f, "new") }, []string{"old", "new"}},
		"synced": {func(fs *FS, f *os.File, _ string) {
			write(fs, f, "new")
			syncFile(fs, f)
		}, []string{"new"}},
		"longer": {func(fs *FS, f *os.File, _ string) { write(fs, f, "newer") }, []string{"old", "new", "newer", "old\x00\x00"}},
		"a failed sync, and another one": {func(fs *FS, f *os.File, _ string) {
			fs.FailAfter(2, eio)
			write(fs, f, "new")
			qt.Assert(t, qt.ErrorIs(syncFile(fs, f), eio))
			qt.Assert(t, qt.IsNil(syncFile(fs, f)))
		}, []string{"old", "new"}}, // new: written back before
		"no power": {func(fs *FS, f *os.File, _ string) {
			fs.CutAfter(1)
			write(fs, f, "new")
			qt.Assert(t, qt.ErrorIs(syncFile(fs, f), ErrPower))
		}, []string{"old"}},
		"removed": {func(fs *FS, f *os.File, dir string) {
			fs.Call("remove", nil, func() error { return os.Remove(filepath.Join(dir, "p")) })
		}, []string{"old", "none"}},
		"removed and synced": {func(fs *FS, f *os.File, dir string) {
			fs.Call("remove", nil, func() error { return os.Remove(filepath.Join(dir, "p")) })
			d, err := os.Open(dir)
			qt.Assert(t, qt.IsNil(err))
			defer d.Close()
			syncFile(fs, d)
		}, []string{"none"}},
	} {
		want := map[string]bool{}
		for _, s := range tc.want {
			want[s] = true
		}
		qt.Check(t, qt.DeepEquals(outcomes(t, tc.work), want), qt.Commentf("%s", name))
	}
}

// A failed sync leaves in the cache what is not on the medium, until the cache
// is dropped.
func TestFSDropsCache(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "p")
	qt.Assert(t, qt.IsNil(os.WriteFile(path, []byte("old"), 0o600)))
	for seed := range uint64(100) {
		fs, err := NewFS(dir, rand.New(rand.NewPCG(seed, 1)))
		qt.Assert(t, qt.IsNil(err))
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		qt.Assert(t, qt.IsNil(err))
		fs.FailAfter(2, errors.New("input/output error"))
		write(fs, f, "new")
		syncFile(fs, f)
		b, _ := os.ReadFile(path)
		qt.Assert(t, qt.Equals(string(b), "new"))
		fs.Call("fadvise", f, func() error { return unsynced("fadvise") })
		b, _ = os.ReadFile(path)
		f.Close()
		qt.Assert(t, qt.IsNil(fs.Restart(true)))
		after, _ := os.ReadFile(path)
		qt.Assert(t, qt.Equals(string(b), string(after)))
		fs.Close()
		qt.Assert(t, qt.IsNil(os.WriteFile(path, []byte("old"), 0o600)))
	}
}

// Every way to make something durable is found, and nothing else.
func TestSites(t *testing.T) {
	dir := t.TempDir()
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "a.go"), []byte(`package a

func (d *T) F(out *bufio.Writer) {
	d.dom.Flush(0, 1)
	out.Flush()
	go func() { d.Fence() }()
	change("fsync", f, "", func() error { return unix.Fsync(1) })
	change("link", f, "", func() error { return unix.Link("", "") })
	unix.Fsync(1)
	f.Sync()
}
`), 0o600)))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "a_test.go"), []byte("package a\nfunc f() { d.Fence() }\n"), 0o600)))
	found, err := sites(filepath.Join(dir, "*.go"))
	qt.Assert(t, qt.IsNil(err))
	var text []string
	for _, s := range found {
		text = append(text, s.text)
	}
	qt.Assert(t, qt.DeepEquals(text, []string{
		"(*T).F: d.dom.Flush", "(*T).F: d.Fence", `(*T).F: change("fsync")`, "(*T).F: unix.Fsync", "(*T).F: f.Sync",
	}))
}
