package pmem

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// openPool opens an existing file for Open. writer names the process that has
// the pool open for writing while it is opened read-only.
func openPool(path string, readOnly bool) (f *os.File, pl place, writer string, err error) {
	if pl, err = placeOf(path); err != nil {
		return nil, pl, "", err
	}
	flags := unix.O_RDWR
	if readOnly {
		flags = unix.O_RDONLY
	}
	if f, err = os.OpenFile(path, flags|unix.O_CLOEXEC, 0); err != nil {
		return nil, pl, "", err
	}
	if !readOnly {
		err = lockFile(f, unix.LOCK_EX, lockGrace)
	} else if err = lockFile(f, unix.LOCK_SH, 0); errors.Is(err, ErrLocked) {
		writer, err = lockHolder(f), nil
	}
	if err != nil {
		f.Close()
		return nil, pl, "", err
	}
	return f, pl, writer, nil
}

// firstBytes returns what is needed to find the superblock. A device-DAX
// device has no read(2), so its beginning is mapped for a moment.
func firstBytes(f *os.File, pl place) ([]byte, error) {
	b := make([]byte, superReach)
	if pl.backing == BackingDAX {
		m, err := mapFile(f, pl.unit, unix.PROT_READ, 0)
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
		switch err := unix.Fallocate(int(f.Fd()), 0, int64(off), int64(n)); err {
		case nil:
			off += n
		case unix.EINTR:
		case unix.EOPNOTSUPP: // it cannot be reserved: the size at least
			return f.Truncate(int64(size))
		case unix.ENOSPC, unix.ENOMEM, unix.EFBIG, unix.EDQUOT:
			return fmt.Errorf("%w: no room for %d bytes of %s (%w); choose a smaller size, or give the file system more (tmpfs: remount with a larger size; hugetlbfs: raise vm.nr_hugepages)",
				ErrSize, size, f.Name(), err)
		default:
			return fmt.Errorf("reserve %d bytes for %s: %w", size, f.Name(), err)
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

// createFile makes the file of a new pool: without a name until publish, so
// that a crash on the way leaves nothing behind.
//
// A file system that cannot do that (NFS, 9p) gets a file with a temporary
// name, which the caller removes.
func createFile(path string) (f *os.File, temporary string, err error) {
	fd, err := unix.Open(filepath.Dir(path), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == unix.EOPNOTSUPP || err == unix.EISDIR || err == unix.EINVAL {
		temporary = fmt.Sprintf("%s.new-%d", path, os.Getpid())
		fd, err = unix.Open(temporary, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	}
	if err != nil {
		return nil, "", &os.PathError{Op: "create", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), temporary, nil
}

// publish gives the file of createFile its name.
func publish(f *os.File, temporary, path string) error {
	from := temporary
	if from == "" {
		from = fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	}
	err := unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	if err == unix.EEXIST {
		return existsError(path)
	}
	if err != nil {
		return &os.PathError{Op: "link", Path: path, Err: err}
	}
	return nil
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func existsError(path string) error {
	return fmt.Errorf("%w: %s; open it, remove it, or ask for it to be overwritten", ErrExists, path)
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
