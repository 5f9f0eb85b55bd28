package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"
)

// TestRunRefuses: what cannot be run is refused with a sentence, before anything is
// executed.
func TestRunRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		qt.Assert(t, qt.IsNil(os.WriteFile(path, []byte(content), 0o755)))
		qt.Assert(t, qt.IsNil(os.Chmod(path, mode)))
		return path
	}
	lib := file("libpaste-netmap.so", "", 0o755)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "missing argument PROGRAM"},
		{[]string{"true"}, exitError, "scripts/build-preload makes it"},
		{[]string{"--lib", filepath.Join(dir, "none.so"), "true"}, exitError, "none.so"},
		{[]string{"--lib", lib, "true"}, exitError, "is not complete"},
	} {
		code, _, stderr := pastectl(append([]string{"run"}, c.args...)...)
		qt.Check(t, qt.Equals(code, c.code), qt.Commentf("%v: %s", c.args, stderr))
		qt.Check(t, qt.StringContains(stderr, c.want))
		assertSentence(t, stderr)
	}
	file("libpaste-netmap-core.so", "", 0o755)
	for _, c := range []struct{ program, want string }{
		{filepath.Join(dir, "nothing"), "no such file"},
		{file("text", "hello", 0o755), "neither a program nor a script"},
		{file("script", "#!/no/interpreter\n", 0o755), "is a script"},
		{file("empty", "#!\n", 0o755), "names no interpreter"},
		{file("setuid", "\x7fELF", 0o755|os.ModeSetuid), "privileges of another user"},
	} {
		code, _, stderr := pastectl("run", "--lib", lib, "--", c.program)
		qt.Check(t, qt.Equals(code, exitError), qt.Commentf("%s", c.program))
		qt.Check(t, qt.StringContains(stderr, c.want))
		assertSentence(t, stderr)
	}
	// A dynamic program, and a script of one.
	sh, err := filepath.EvalSymlinks("/bin/sh")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsNil(preloadable(sh, 0)))
	qt.Check(t, qt.IsNil(preloadable(file("good", "#!/bin/sh -e\n", 0o755), 0)))
}
