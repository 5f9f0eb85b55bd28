package pmem

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// A link to nothing is neither followed nor tried for ever.
func TestDanglingLink(t *testing.T) {
	link := filepath.Join(shm(t), "link")
	qt.Assert(t, qt.IsNil(os.Symlink(filepath.Join(filepath.Dir(link), "nothing"), link)))
	for _, f := range []func(string, Options) (*Pool, error){Create, OpenOrCreate, Open} {
		_, err := f(link, Options{Size: testSize})
		qt.Assert(t, qt.ErrorIs(err, ErrNotPool))
		qt.Assert(t, qt.ErrorMatches(err, ".*link is a symbolic link to .*nothing, where nothing is; .*"))
	}
	_, err := os.Lstat(filepath.Join(filepath.Dir(link), "nothing"))
	qt.Assert(t, qt.ErrorIs(err, os.ErrNotExist))
}

// A link to a pool is followed.
func TestLink(t *testing.T) {
	path, p := newFile(t, Options{})
	qt.Assert(t, qt.IsNil(p.Close()))
	link := path + ".link"
	qt.Assert(t, qt.IsNil(os.Symlink(path, link)))
	p, err := OpenOrCreate(link, Options{})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(p.Close()))
}

// What others may write to is not mapped for writing, unless that is asked for.
func TestOwner(t *testing.T) {
	path, p := newFile(t, Options{})
	qt.Assert(t, qt.IsNil(p.Close()))
	openers := map[string]func(o Options) error{
		"Open": func(o Options) error {
			p, err := Open(path, o)
			if err == nil {
				err = p.Close()
			}
			return err
		},
		"OpenOrCreate": func(o Options) error {
			p, err := OpenOrCreate(path, o)
			if err == nil {
				err = p.Close()
			}
			return err
		},
	}
	refused := func() {
		t.Helper()
		for name, open := range openers {
			qt.Check(t, qt.ErrorIs(open(Options{}), ErrOwner), qt.Commentf(name))
			qt.Check(t, qt.IsNil(open(Options{AllowForeign: true})), qt.Commentf(name))
			qt.Check(t, qt.IsNil(open(Options{ReadOnly: true})), qt.Commentf(name))
		}
		qt.Check(t, qt.ErrorIs(Grow(path, 2*testSize), ErrOwner))
	}
	for _, mode := range []os.FileMode{0o666, 0o602, 0o620} {
		qt.Assert(t, qt.IsNil(os.Chmod(path, mode)))
		refused()
	}
	qt.Assert(t, qt.IsNil(os.Chmod(path, 0o644)))
	qt.Assert(t, qt.IsNil(openers["Open"](Options{})))
	if os.Geteuid() == 0 { // nobody else can give a file away
		qt.Assert(t, qt.IsNil(os.Chown(path, 65534, 65534)))
		refused()
	}
	// The directory may be everybody's, as /dev/shm is.
	qt.Assert(t, qt.IsNil(os.Chown(path, os.Geteuid(), os.Getegid())))
	qt.Assert(t, qt.IsNil(os.Chmod(filepath.Dir(path), 0o777|os.ModeSticky)))
	qt.Assert(t, qt.IsNil(openers["Open"](Options{})))
}

// A pool is not checked while somebody writes to it, and nobody writes to it
// while it is checked.
func TestCheckInUse(t *testing.T) {
	path, p := newFile(t, Options{})
	q, err := Open(path, Options{ReadOnly: true})
	qt.Assert(t, qt.IsNil(err))
	_, err = q.Check(t.Context(), nil, func(err error) { t.Errorf("found: %v", err) })
	qt.Assert(t, qt.ErrorIs(err, ErrLocked))
	qt.Assert(t, qt.ErrorMatches(err, ".*this process has .*p.pool open.*"))
	qt.Assert(t, qt.IsNil(q.Close()))
	qt.Assert(t, qt.IsNil(p.Close()))
	q, err = Open(path, Options{ReadOnly: true})
	qt.Assert(t, qt.IsNil(err))
	defer q.Close()
	_, err = Open(path, Options{})
	qt.Assert(t, qt.ErrorIs(err, ErrLocked))
	_, err = q.Check(t.Context(), nil, func(err error) { t.Errorf("found: %v", err) })
	qt.Assert(t, qt.IsNil(err))
}

// Two nodes of one device have one lock.
func TestDeviceLock(t *testing.T) {
	own, err := os.OpenFile("/dev/full", os.O_RDONLY, 0)
	qt.Assert(t, qt.IsNil(err))
	defer own.Close()
	node, err := deviceNode(own)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(node)) // it is its own
	if os.Geteuid() != 0 {
		return // only root makes another one
	}
	var st unix.Stat_t
	qt.Assert(t, qt.IsNil(unix.Stat("/dev/full", &st)))
	open := func(name string) (*poolFile, error) {
		path := filepath.Join(t.TempDir(), name)
		qt.Assert(t, qt.IsNil(unix.Mknod(path, unix.S_IFCHR|0o600, int(st.Rdev))))
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if errors.Is(err, os.ErrPermission) {
			t.Fatalf("%s is on a file system without devices: set TMPDIR", path)
		}
		qt.Assert(t, qt.IsNil(err))
		p := &poolFile{File: f, place: place{backing: BackingDAX}}
		t.Cleanup(func() { p.Close() })
		return p, p.lock(Options{})
	}
	first, err := open("a")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(first.node.Name(), "/dev/full"))
	_, err = open("b")
	qt.Assert(t, qt.ErrorIs(err, ErrLocked))
	qt.Assert(t, qt.IsNil(first.Close()))
	_, err = open("c")
	qt.Assert(t, qt.IsNil(err))
}
