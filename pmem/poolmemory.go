package pmem

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// poolMemory is a pool's memory and how it becomes durable.
type poolMemory struct {
	backing Backing
	mem     []byte
	maps    [][]byte // to be unmapped
	frames  *os.File // of a staged pool's frames, else nil
	dom     Domain   // nil: the CPU's instructions on mem
}

func (a *poolMemory) close() (err error) {
	for _, m := range a.maps {
		err = errors.Join(err, unix.Munmap(m))
	}
	if a.frames != nil {
		err = errors.Join(err, a.frames.Close())
	}
	*a = poolMemory{}
	return err
}

func (a *poolMemory) add(f *os.File, size uint64, prot, flags int) ([]byte, error) {
	m, err := mapFile(f, size, prot, flags)
	if err == nil {
		a.maps = append(a.maps, m)
	}
	return m, err
}

// openMemory maps the pool of size bytes in f. A new one holds only zeros.
func openMemory(f *poolFile, size uint64, o Options, isNew bool) (a poolMemory, err error) {
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	a.backing = f.backing
	if o.ReadOnly || !f.backing.Staged() {
		prot, flags := unix.PROT_READ|unix.PROT_WRITE, 0
		if o.ReadOnly {
			prot = unix.PROT_READ
		}
		if isNew {
			flags = unix.MAP_POPULATE
		}
		m, err := a.add(f.File, roundUp(size, f.unit), prot, flags)
		if err != nil {
			return a, err
		}
		a.mem = m[:size]
		return a, nil
	}
	if err := enoughMemory(f.File, size); err != nil {
		return a, err
	}
	if a.frames, err = memfd(f.Name()); err != nil {
		return a, err
	}
	if err := a.frames.Truncate(int64(size)); err != nil {
		return a, err
	}
	if a.mem, err = a.add(a.frames, size, unix.PROT_READ|unix.PROT_WRITE, 0); err != nil {
		return a, err
	}
	if f.backing == BackingFSDAX {
		// MAP_SYNC: the file's blocks are durable before a store can reach them.
		mapped, err := a.add(f.File, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED_VALIDATE|unix.MAP_SYNC)
		if err == nil {
			d := &daxDomain{mem: a.mem, mapped: mapped, cpu: &cpuDomain{mapped}}
			if o.NoFlush {
				d.cpu = &noDomain{mapped}
			}
			a.dom = d
		} else if !errors.Is(err, unix.EOPNOTSUPP) {
			return a, err
		}
	}
	if a.dom == nil {
		a.backing = BackingFile
		a.dom = &fileDomain{mem: a.mem, file: diskFile{f.File}, noSync: o.NoFlush}
	}
	if isNew {
		return a, nil
	}
	return a, load(f.File, a.mem, o.Progress)
}

// enoughMemory refuses early what would end in the kernel killing somebody.
func enoughMemory(f *os.File, size uint64) error {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		w := strings.Fields(line)
		if len(w) < 2 || w[0] != "MemAvailable:" {
			continue
		}
		if kib, err := strconv.ParseUint(w[1], 10, 54); err == nil && kib<<10 < size {
			return fmt.Errorf("%w: the frames of %s are kept in memory, which needs %d bytes, and %d are available; choose a smaller size", ErrSize, f.Name(), size, kib<<10)
		}
	}
	return nil
}

// loadStep is how much is read at once.
const loadStep = 4 << 20

// load reads a staged pool from its file, leaving out holes.
func load(f *os.File, mem []byte, progress func(done, total uint64)) error {
	size := uint64(len(mem))
	for off := uint64(0); off < size; {
		start, err := unix.Seek(int(f.Fd()), int64(off), unix.SEEK_DATA)
		switch {
		case err == unix.ENXIO: // a hole to the end
			return nil
		case err != nil: // a file system without holes
			start = int64(off)
		}
		end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			end = int64(size)
		}
		for off = uint64(start); off < min(uint64(end), size); {
			n := min(loadStep, size-off, uint64(end)-off)
			if _, err := f.ReadAt(mem[off:off+n], int64(off)); err == io.EOF {
				return fmt.Errorf("%w: %s ended while it was read", ErrTruncated, f.Name())
			} else if err != nil {
				return err
			}
			off += n
			if progress != nil {
				progress(off, size)
			}
		}
	}
	return nil
}
