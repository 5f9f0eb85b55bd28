package pmem

import (
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
	f, pl, _, err := openPool(path, false)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := firstBytes(f, pl)
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
	unit := max(pl.unit, sizeQuantum)
	g, err := layout(roundUp(uint64(size), unit), int(s.frameSize), s.logLen)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	case g.size < s.size:
		return fmt.Errorf("%w: %s has %d bytes already and cannot become smaller; dump it and restore it to a smaller one", ErrSize, path, s.size)
	case g.first != s.first || g.logOff != s.logOff || g.logLen != s.logLen:
		return fmt.Errorf("%s: %w: its layout does not allow it", path, ErrDamaged)
	case pl.backing == BackingDAX && g.size > pl.devSize:
		return fmt.Errorf("%w: %s has %d bytes, %d were asked for", ErrSize, path, pl.devSize, g.size)
	}
	if pl.backing != BackingDAX {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return os.NewSyscallError("fstat", err)
		}
		if uint64(st.Size) < s.size {
			return fmt.Errorf("%w: %s has %d bytes, its superblock says %d", ErrTruncated, path, st.Size, s.size)
		}
		if err := reserve(f, g.size); err != nil {
			return err
		}
		// The file has its length before the superblock speaks of it.
		if pl.backing.Staged() {
			if err := f.Sync(); err != nil {
				return fmt.Errorf("%w: %w", ErrIO, err)
			}
		}
	}
	m, err := mapFile(f, roundUp(superReach, unit), unix.PROT_READ|unix.PROT_WRITE, 0)
	if err != nil {
		return err
	}
	defer unix.Munmap(m)
	return guard(path, m, nil, func() error { return growSuper(m, &msyncDomain{cpuDomain{m}, pl.backing.Staged()}, s, g) })
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

// msyncDomain is for a few pages of a mapped file of any kind.
type msyncDomain struct {
	cpuDomain
	sync bool
}

func (d *msyncDomain) Order() (bool, error) { return true, d.Fence() }

func (d *msyncDomain) Fence() error {
	fence()
	if !d.sync {
		return nil
	}
	if err := unix.Msync(d.mem, unix.MS_SYNC); err != nil {
		return fmt.Errorf("%w: %w", ErrIO, os.NewSyscallError("msync", err))
	}
	return nil
}
