package pmem

import (
	"errors"
	"fmt"
	"os"
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
	for tries := 0; ; tries++ {
		if f, err = os.OpenFile(path, flags|unix.O_CLOEXEC, 0); err != nil {
			return nil, pl, "", err
		}
		if !readOnly {
			err = lockFile(f, unix.LOCK_EX, lockGrace)
		} else if err = lockFile(f, unix.LOCK_SH, 0); errors.Is(err, ErrLocked) {
			writer, err = lockHolder(f), nil
		}
		if err == nil && (tries == 100 || named(f, path)) { // some FUSE file systems number files anew each time
			return f, pl, writer, nil
		}
		f.Close()
		if err != nil {
			return nil, pl, "", err
		}
		// Whoever held the lock has put another file in its place, or removed it.
		writer = ""
	}
}

// named reports whether path still leads to f.
func named(f *os.File, path string) bool {
	a, err := f.Stat()
	b, err2 := os.Stat(path)
	return err == nil && err2 == nil && os.SameFile(a, b)
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
