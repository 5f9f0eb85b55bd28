package pmem

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"
)

// When a pool's file goes away, that is noticed without touching the pool, and
// what was to be stored then is refused with one error.
func TestLostFile(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"removed":   os.Remove,
		"cut off":   func(path string) error { return os.Truncate(path, testSize/2) },
		"emptied":   func(path string) error { return os.Truncate(path, 0) },
		"replaced":  func(path string) error { return os.Rename(path+".other", path) },
		"all of it": func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
	} {
		t.Run(name, func(t *testing.T) {
			path, p := newFile(t, Options{})
			qt.Assert(t, qt.IsNil(os.WriteFile(path+".other", []byte("x"), 0o600)))
			store := func(s string) error {
				_, err := p.Log().AppendCopy([]byte(s))
				if err != nil {
					return err
				}
				return p.Log().Commit()
			}
			qt.Assert(t, qt.IsNil(store("first")))
			qt.Assert(t, qt.IsNil(p.Err()))
			qt.Assert(t, qt.IsNil(lose(path)))
			<-p.Lost()
			qt.Assert(t, qt.ErrorIs(p.Err(), ErrLost))
			qt.Assert(t, qt.ErrorMatches(p.Err(), "pool file lost: "+path+" was .* while it was open.*"))
			for range 2 {
				err := store("second")
				qt.Assert(t, qt.ErrorIs(err, ErrLost))
				qt.Assert(t, qt.ErrorIs(err, ErrIO))
			}
			qt.Assert(t, qt.ErrorIs(p.SetRoot("r", Root{}), ErrLost))
			qt.Assert(t, qt.ErrorIs(p.Log().Truncate(1), ErrLost))
			_ = p.Close() // whose log may have something to note
		})
	}
}

// A pool that is renamed, or opened read-only, is not lost.
func TestNotLost(t *testing.T) {
	path, p := newFile(t, Options{})
	qt.Assert(t, qt.IsNil(os.Rename(path, path+".new")))
	qt.Assert(t, qt.IsNil(p.watch.look(&p.file, p.g.size)))
	qt.Assert(t, qt.IsNil(p.Close()))
	r, err := Open(path+".new", Options{ReadOnly: true})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.Remove(path+".new")))
	qt.Assert(t, qt.IsNil(r.watch.look(&r.file, r.g.size)))
	qt.Assert(t, qt.IsNil(r.Close()))
}
