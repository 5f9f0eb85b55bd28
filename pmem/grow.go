package pmem

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Grow makes the pool at path larger; nobody may have it open. size is rounded
// up as by Create. The log keeps its number of entries, the new frames are free.
// A crash on the way leaves the pool with the old or with the new size.
func Grow(path string, size int64) error {
	if err := grow(path, size); err != nil {
		return fmt.Errorf("grow pool: %w", err)
	}
	return nil
}

func grow(path string, size int64) error {
	f, err := openPool(path, Options{})
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := firstBytes(&f)
	if err != nil {
		return err
	}
	s, err := readSuper(b)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if size < 0 {
		return fmt.Errorf("%w: %d bytes", ErrSize, size)
	}
	unit := max(f.unit, sizeQuantum)
	g, err := layout(roundUp(uint64(size), unit), int(s.frameSize), s.logLen)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	case g.size < s.size:
		return fmt.Errorf("%w: %s has %d bytes already and cannot become smaller; dump it and restore it to a smaller one", ErrSize, path, s.size)
	case g.first != s.first || g.logOff != s.logOff || g.logLen != s.logLen:
		return fmt.Errorf("%s: %w: its layout does not allow it", path, ErrDamaged)
	case f.backing == BackingDAX && g.size > f.devSize:
		return fmt.Errorf("%w: %s has %d bytes, %d were asked for", ErrSize, path, f.devSize, g.size)
	}
	if f.backing != BackingDAX {
		if err := lengthen(&f, s.size, g.size); err != nil {
			return err
		}
	}
	if f.backing.Staged() {
		return growSuper(b, &fileDomain{mem: b, file: diskFile{f.File}}, s, g)
	}
	m, err := mapFile(f.File, roundUp(superReach, unit), unix.PROT_READ|unix.PROT_WRITE, 0)
	if err != nil {
		return err
	}
	defer unix.Munmap(m)
	return guard(path, m, nil, func() error { return growSuper(m, &cpuDomain{m}, s, g) })
}

// lengthen makes the file of a pool of size bytes longer; after an error it has
// the length that it had.
func lengthen(f *poolFile, size, to uint64) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	if uint64(st.Size) < size {
		return fmt.Errorf("%w: %s has %d bytes, its superblock says %d", ErrTruncated, f.Name(), st.Size, size)
	}
	err := reserve(f.File, to)
	// The file has its length before the superblock speaks of it.
	if err == nil && f.backing.Staged() {
		if err = (diskFile{f.File}).Sync(); err != nil {
			err = fmt.Errorf("%w: %w", ErrIO, err)
		}
	}
	if err != nil && uint64(st.Size) < to {
		err = errors.Join(err, diskFile{f.File}.resize(uint64(st.Size)))
	}
	return err
}

// growSuper is the change itself: of both copies, a bad one first.
func growSuper(mem []byte, dom Domain, s superblock, g geometry) error {
	if s.bad != noneBad {
		if err := writeSuperCopy(mem, dom, &s, s.bad.index()); err != nil {
			return err
		}
	}
	s.geometry = g
	return writeSuper(mem, dom, &s)
}
