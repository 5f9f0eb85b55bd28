package pmem

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Create makes a new pool of o.Size bytes at path and opens it. All of its
// memory is reserved at once. It fails with ErrExists if path exists, or, for
// a device-DAX device, if its first 2 MiB are not all zero, unless o.Overwrite
// is set. A crash during Create leaves no file, or on a device one that is
// recognised as ErrIncomplete. An existing file is replaced in one step, and
// stays if there is an error; a crash meanwhile may leave a second file behind,
// whose name is path with the suffix ".new-" and a number.
func Create(path string, o Options) (*Pool, error) {
	p, err := create(path, o, func(*Pool) error { return nil })
	if err != nil {
		return nil, fmt.Errorf("create pool: %w", err)
	}
	return p, nil
}

// openTries is how often another process may remove what it has just created.
const openTries = 100

// OpenOrCreate opens the pool at path, or creates it if there is none or only
// a half-created one. It never overwrites anything else.
func OpenOrCreate(path string, o Options) (*Pool, error) {
	o.Overwrite = false
	for tries := 0; ; tries++ {
		p, err := Open(path, o)
		switch {
		case errors.Is(err, ErrIncomplete):
			o.Overwrite = true
		case errors.Is(err, ErrNotPool):
			if pl, perr := placeOf(path); perr != nil || pl.backing != BackingDAX {
				return nil, err
			}
			// Create takes a device only if it is blank.
			if p, cerr := Create(path, o); !errors.Is(cerr, ErrExists) {
				return p, cerr
			}
			return nil, err
		case !errors.Is(err, os.ErrNotExist):
			return p, err
		}
		// Another process may create it in between; then open that one.
		if p, err = Create(path, o); !errors.Is(err, ErrExists) || tries == openTries {
			return p, err
		}
	}
}

// NewMemory makes a pool in a memfd of this process; it is gone after Close.
// name is for /proc only.
func NewMemory(name string, o Options) (*Pool, error) {
	f, err := memfd(name)
	if err != nil {
		return nil, err
	}
	p, err := createIn(poolFile{File: f, place: place{backing: BackingMemory, unit: uint64(os.Getpagesize())}}, o)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("create pool: %w", err)
	}
	return p, nil
}

// create makes a pool, lets fill put something into it, and gives it its name.
func create(path string, o Options, fill func(*Pool) error) (*Pool, error) {
	pl, err := placeOf(path)
	if err != nil {
		return nil, err
	}
	_, err = os.Lstat(path)
	exists := err == nil
	if pl.backing == BackingDAX {
		return createDevice(path, o, fill)
	}
	if exists {
		if !o.Overwrite {
			return nil, existsError(path)
		}
		// Whoever has the old one open must not lose it.
		old, err := openPool(path, Options{AllowForeign: true})
		if err != nil {
			return nil, err
		}
		defer old.Close()
	}
	f, err := newDraft(path)
	if err != nil {
		return nil, err
	}
	defer f.tidy()
	p, err := createIn(poolFile{File: f.File, place: pl}, o)
	if err != nil {
		f.Close()
		return nil, err
	}
	if err = fill(p); err == nil {
		// Its content is durable already.
		err = f.publish(exists, pl.backing.Staged() && !o.NoFlush)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	p.file.isNew = true
	p.watchFile()
	return p, nil
}

func createDevice(path string, o Options, fill func(*Pool) error) (*Pool, error) {
	f, err := openPool(path, Options{AllowForeign: o.AllowForeign})
	if err != nil {
		return nil, err
	}
	p, err := func() (*Pool, error) {
		if !o.Overwrite {
			if err := blank(&f); err != nil {
				return nil, err
			}
		}
		return createIn(f, o)
	}()
	if err != nil {
		f.Close()
		return nil, err
	}
	if err := fill(p); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// blank fails unless the beginning of a device holds zeros only.
func blank(f *poolFile) error {
	m, err := mapFile(f.File, max(f.unit, daxAlign), unix.PROT_READ, 0)
	if err != nil {
		return err
	}
	defer unix.Munmap(m)
	return guard(f.Name(), m, nil, func() error {
		if len(bytes.Trim(m[:daxAlign], "\x00")) != 0 {
			return existsError(f.Name())
		}
		return nil
	})
}

// createIn formats a new pool in f, which the pool takes over on success.
func createIn(f poolFile, o Options) (*Pool, error) {
	if o.ReadOnly {
		return nil, fmt.Errorf("%s: %w", f.Name(), ErrReadOnly)
	}
	if o.FrameSize == 0 {
		o.FrameSize = DefaultFrameSize
	}
	if o.Size == 0 && f.backing == BackingDAX {
		o.Size = int64(f.devSize / f.unit * f.unit)
	}
	if o.Size == 0 {
		return nil, fmt.Errorf("%s: %w: none is given; only a device-DAX device has one of its own", f.Name(), ErrSize)
	}
	if o.Size < 0 || o.LogEntries < 0 {
		return nil, fmt.Errorf("%s: %w: size %d, log entries %d", f.Name(), ErrSize, o.Size, o.LogEntries)
	}
	g, err := layout(roundUp(uint64(o.Size), max(f.unit, sizeQuantum)), o.FrameSize, uint64(o.LogEntries))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if f.backing == BackingDAX {
		if g.size > f.devSize {
			return nil, fmt.Errorf("%w: %s has %d bytes, %d were asked for", ErrSize, f.Name(), f.devSize, g.size)
		}
	} else {
		// The lock comes before the name, so nobody opens it first.
		if err := lockFile(f.File, unix.LOCK_EX, 0); err != nil {
			return nil, err
		}
		if err := reserve(f.File, g.size); err != nil {
			return nil, err
		}
	}
	a, err := openMemory(&f, g.size, o, true)
	if err != nil {
		return nil, err
	}
	f.backing = a.backing
	s := superblock{version: formatVersion, geometry: g, created: now()}
	rand.Read(s.uuid[:])
	err = format(a.mem, orCPU(a.mem, a.dom), s)
	var p *Pool
	if err == nil {
		p, err = newPool(a.mem, s, o, a.dom, f)
	}
	if err != nil {
		a.close()
		return nil, err
	}
	p.memory = a
	return p, nil
}
