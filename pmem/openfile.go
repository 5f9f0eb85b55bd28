package pmem

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// poolFile is the file that a pool lives in, open and locked. The zero value is
// that of a pool in memory of the caller's.
type poolFile struct {
	*os.File
	place
	writer string   // of a pool opened read-only: who has it open for writing
	node   *os.File // of a device opened by another node than its own: that one, locked as well
	isNew  bool     // this process has made the file
}

func (f *poolFile) path() string {
	if f.File == nil {
		return ""
	}
	return f.Name()
}

// Close closes the file, which gives up its lock.
func (f *poolFile) Close() (err error) {
	if f.node != nil {
		err = f.node.Close()
	}
	if f.File != nil {
		err = errors.Join(err, f.File.Close())
	}
	return err
}

// openPool opens an existing file for Open, and locks it.
func openPool(path string, o Options) (f poolFile, err error) {
	if f.place, err = placeOf(path); err != nil {
		return poolFile{}, err
	}
	flags := unix.O_RDWR
	if o.ReadOnly {
		flags = unix.O_RDONLY
	}
	for tries := 0; ; tries++ {
		if f.File, err = os.OpenFile(path, flags|unix.O_CLOEXEC, 0); err != nil {
			return poolFile{}, err
		}
		if err = f.lock(o); err == nil && (tries == 100 || named(f.File, path)) { // some FUSE file systems number files anew each time
			return f, nil
		}
		f.Close()
		if err != nil {
			return poolFile{}, err
		}
		// Whoever held the lock has put another file in its place, or removed it.
		f.writer, f.node = "", nil
	}
}

// lock refuses a file that is not to be trusted, and takes the lock of any other.
func (f *poolFile) lock(o Options) (err error) {
	if !o.ReadOnly && !o.AllowForeign {
		if err := owned(f.File); err != nil {
			return err
		}
	}
	lock := func(file *os.File) error { return lockFile(file, unix.LOCK_EX, lockGrace) }
	if o.ReadOnly {
		lock = func(file *os.File) error {
			err := lockFile(file, unix.LOCK_SH, 0)
			if errors.Is(err, ErrLocked) {
				f.writer, err = lockHolder(file), nil
			}
			return err
		}
	}
	if err := lock(f.File); err != nil || f.backing != BackingDAX {
		return err
	}
	if f.node, err = deviceNode(f.File); err != nil || f.node == nil {
		return err
	}
	return lock(f.node)
}

// owned fails for a file that another user than this process's owns, or may
// write to: what such a file holds is that user's choice, also while it is
// mapped. Files of root are trusted, and a device's group.
func owned(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if uid := os.Geteuid(); st.Uid != 0 && int(st.Uid) != uid {
		return fmt.Errorf("%w: user %d owns %s, and this process is of user %d; chown it, or allow it explicitly", ErrOwner, st.Uid, f.Name(), uid)
	}
	writable := uint32(0o022)
	if st.Mode&unix.S_IFMT == unix.S_IFCHR {
		writable = 0o002
	}
	if st.Mode&writable != 0 {
		return fmt.Errorf("%w: %s has mode %#o, so that others may write to it; chmod go-w it, or allow it explicitly", ErrOwner, f.Name(), st.Mode&0o777)
	}
	return nil
}

// named reports whether path still leads to f.
func named(f *os.File, path string) bool {
	a, err := f.Stat()
	b, err2 := os.Stat(path)
	return err == nil && err2 == nil && os.SameFile(a, b)
}

// firstBytes returns what is needed to find the superblock. A device-DAX
// device has no read(2), so its beginning is mapped for a moment.
func firstBytes(f *poolFile) ([]byte, error) {
	b := make([]byte, superReach)
	if f.backing == BackingDAX {
		m, err := mapFile(f.File, f.unit, unix.PROT_READ, 0)
		if err != nil {
			return nil, err
		}
		err = guard(f.Name(), m, nil, func() error { copy(b, m); return nil })
		return b, errors.Join(err, unix.Munmap(m))
	}
	n, err := f.ReadAt(b, 0)
	if n > 0 || err == nil {
		return b[:n], nil
	}
	if st, serr := f.Stat(); serr == nil && st.Size() == 0 {
		return nil, nil
	}
	return nil, err
}

// mapFile maps the beginning of f; flags are added to MAP_SHARED.
func mapFile(f *os.File, size uint64, prot, flags int) ([]byte, error) {
	if size > 1<<62 {
		return nil, fmt.Errorf("map %s: %w: %d bytes", f.Name(), ErrSize, size)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(size), prot, unix.MAP_SHARED|flags)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of %s: %w", size, f.Name(), err)
	}
	return m, nil
}

// memfd makes the file of NewMemory.
func memfd(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create memfd %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), "memfd:"+name), nil
}

func roundUp(n, unit uint64) uint64 { return (n + unit - 1) / unit * unit }

func now() time.Time { return time.Now().Round(0) }
