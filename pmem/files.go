package pmem

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// system makes a system call that changes files or makes them durable; f is
// the open file that it is about, nil if only names are changed. All such calls
// of this package go through it: tests put a disk in its place that loses what
// was not synced, fails, or forgets a call.
var system = func(call string, f *os.File, do func() error) error { return do() }

// change is system with an error that names the call and the file.
func change(call string, f *os.File, path string, do func() error) error {
	err := system(call, f, func() error {
		for {
			if err := do(); err != unix.EINTR {
				return err
			}
		}
	})
	if err == nil {
		return nil
	}
	return &os.PathError{Op: call, Path: path, Err: err}
}

// diskFile is the storage that is a file.
type diskFile struct{ *os.File }

func (f diskFile) WriteAt(b []byte, off int64) (n int, err error) {
	err = change("write", f.File, f.Name(), func() error {
		n, err = f.File.WriteAt(b, off)
		var path *os.PathError
		if errors.As(err, &path) {
			return path.Err
		}
		return err
	})
	return n, err
}

// Sync makes content and size durable. Timestamps need not be.
func (f diskFile) Sync() error {
	return change("fdatasync", f.File, f.Name(), func() error { return unix.Fdatasync(int(f.Fd())) })
}

func (f diskFile) resize(size uint64) error {
	return change("truncate", f.File, f.Name(), func() error { return unix.Ftruncate(int(f.Fd()), int64(size)) })
}

// settle sees to it that what is read from a staged pool's file from now on is
// on its medium.
//
// What an earlier process wrote and could not sync may still be in the page
// cache, looking durable. So the cache is synced, which reports an error that
// nobody has heard of yet, and dropped: what is read next comes from the medium.
func settle(f *os.File) error {
	if err := (diskFile{f}).Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%w: %w", ErrIO, err)
	}
	// Advice: nothing to do if it is not taken.
	_ = change("fadvise", f, f.Name(), func() error { return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) })
	return nil
}

// reserveStep bounds one fallocate(2): on tmpfs an interrupted call gives back
// what it had reserved, so a single one over the whole pool might never end.
const reserveStep = 64 << 20

// reserve gives f its size with all of its memory, so that no later store can
// meet a full file system (which the CPU reports as SIGBUS).
func reserve(f *os.File, size uint64) error {
	if err := roomFor(f, size); err != nil {
		return err
	}
	for off := uint64(0); off < size; {
		n := min(size-off, reserveStep)
		err := change("fallocate", f, f.Name(), func() error { return unix.Fallocate(int(f.Fd()), 0, int64(off), int64(n)) })
		switch {
		case err == nil:
			off += n
		case errors.Is(err, unix.EOPNOTSUPP): // it cannot be reserved: the size at least
			return diskFile{f}.resize(size)
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.ENOMEM), errors.Is(err, unix.EFBIG), errors.Is(err, unix.EDQUOT):
			return fmt.Errorf("%w: no room for %d bytes (%w); choose a smaller size, or give the file system more (tmpfs: remount with a larger size; hugetlbfs: raise vm.nr_hugepages)",
				ErrSize, size, err)
		default:
			return err
		}
	}
	return nil
}

// roomFor refuses early what the file system cannot hold, instead of filling
// the machine's memory first.
func roomFor(f *os.File, size uint64) error {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(int(f.Fd()), &fs) != nil || unix.Fstat(int(f.Fd()), &st) != nil || fs.Blocks == 0 {
		return nil // no limit known; fallocate will tell
	}
	if free := fs.Bavail*uint64(fs.Bsize) + uint64(st.Blocks)*512; size > free {
		return fmt.Errorf("%w: %s needs %d bytes and its file system has %d free; choose a smaller size, or give it more room (tmpfs: remount with a larger size)",
			ErrSize, f.Name(), size, free)
	}
	return nil
}

// draft is the file of a new pool on its way to a name.
type draft struct {
	*os.File
	path  string // that it is to get
	other string // temporary name of it, or of the file that it replaces; "" none
}

// newDraft makes the file of a new pool: without a name until publish, so
// that a crash on the way leaves nothing behind. A file system that cannot do
// that (NFS, 9p) gets a file with a temporary name.
func newDraft(path string) (*draft, error) {
	n := &draft{path: path}
	open := func(name string, flags int) error {
		return change("create", nil, path, func() error {
			fd, err := unix.Open(name, flags|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
			if err == nil {
				n.File = os.NewFile(uintptr(fd), path)
			}
			return err
		})
	}
	err := open(filepath.Dir(path), unix.O_TMPFILE)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL) {
		n.other = n.temporary()
		err = open(n.other, unix.O_CREAT|unix.O_EXCL)
	}
	if err != nil {
		return nil, err
	}
	return n, nil
}

// temporary makes up a name. A process id would come again, in a container that
// starts anew for one, while a file that a crash left still has it.
func (n *draft) temporary() string { return fmt.Sprintf("%s.new-%d", n.path, rand.Uint32()) }

// publish gives the file its name; with durable, the name is on the medium when
// it returns. With replace, there is a file of that name, and at every moment
// either that one or the new one has it. After an error the old one has.
func (n *draft) publish(replace, durable bool) error {
	if replace {
		if n.other == "" {
			name := n.temporary()
			if err := n.link(name); err != nil {
				return err
			}
			n.other = name
		}
		return n.replace(durable)
	}
	if err := n.link(n.path); err != nil {
		return err
	}
	if !durable {
		return nil
	}
	err := syncDir(filepath.Dir(n.path))
	if err != nil {
		err = errors.Join(err, remove(n.path))
	}
	return err
}

func (n *draft) link(to string) error {
	from := n.other
	if from == "" {
		from = fmt.Sprintf("/proc/self/fd/%d", n.Fd())
	}
	err := change("link", nil, to, func() error {
		return unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
	})
	if errors.Is(err, unix.EEXIST) && to == n.path {
		return existsError(to)
	}
	return err
}

// replace exchanges the names of the two files, so that it can be undone.
func (n *draft) replace(durable bool) error {
	exchange := func(flags uint) error {
		return change("rename", nil, n.path, func() error {
			return unix.Renameat2(unix.AT_FDCWD, n.other, unix.AT_FDCWD, n.path, flags)
		})
	}
	err := exchange(unix.RENAME_EXCHANGE)
	undo := err == nil
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = exchange(0) // the old file goes at once
	}
	if err != nil || !durable {
		return err
	}
	if err = syncDir(filepath.Dir(n.path)); err != nil && undo {
		err = errors.Join(err, exchange(unix.RENAME_EXCHANGE))
	}
	return err
}

// tidy removes what is left under the temporary name.
func (n *draft) tidy() {
	if n.other != "" {
		_ = remove(n.other) // the name of what was replaced may be gone already
	}
}

func remove(path string) error {
	return change("remove", nil, path, func() error { return unix.Unlink(path) })
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return change("fsync", d, dir, func() error { return unix.Fsync(int(d.Fd())) })
}

func existsError(path string) error {
	return fmt.Errorf("%w: %s; open it, remove it, or ask for it to be overwritten", ErrExists, path)
}
