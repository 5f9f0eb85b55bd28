package pmem

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options says how a pool is made or opened.
type Options struct {
	// Size in bytes of a new pool, rounded up to whole pages of its backing.
	// 0 means the whole device for device-DAX and is an error elsewhere.
	// Ignored by Open.
	Size int64
	// FrameSize of a new pool in bytes: 2048, 4096, or 0 for DefaultFrameSize.
	FrameSize int
	// LogEntries is the least number of log entries (payload fragments) of a
	// new pool; 0 means two per frame.
	LogEntries int
	// ReadOnly maps the pool without the right to write. If a writer has the
	// pool open, what is seen is a moving picture: see Pool.Live.
	ReadOnly bool
	// NoFlush leaves out all flushes and fences: what is stored survives the
	// process, and not the machine, whatever the backing.
	NoFlush bool
	// Overwrite lets Create replace what is at the path, whatever it is.
	Overwrite bool

	writer string // of a live pool
}

// Pool is a mapped pool. Its methods may be called from several goroutines,
// except Close; the Log has rules of its own.
type Pool struct {
	g        geometry
	mem      []byte // the pool
	mapped   []byte // the mapping, at least as long
	file     *os.File
	path     string
	backing  Backing
	uuid     UUID
	created  time.Time
	readOnly bool
	writer   string // who holds a live pool
	per      persister
	frames   frameTable
	log      *Log

	closeOnce sync.Once
	closeErr  error
}

// Create makes a new pool of o.Size bytes at path and opens it. All of its
// memory is reserved at once. It fails with ErrExists if path exists, or, for
// a device-DAX device, if its first 2 MiB are not all zero, unless o.Overwrite
// is set. A crash during Create leaves no file, or on a device one that is
// recognised as ErrIncomplete.
func Create(path string, o Options) (*Pool, error) {
	p, err := create(path, o)
	if err != nil {
		return nil, fmt.Errorf("create pool: %w", err)
	}
	return p, nil
}

// Open maps the existing pool at path and recovers its log; what was found is
// in Log.Recovery. With o.ReadOnly a damaged log can be opened and inspected;
// for writing it is refused with ErrDamaged.
func Open(path string, o Options) (*Pool, error) {
	p, err := open(path, o)
	if err != nil {
		return nil, fmt.Errorf("open pool: %w", err)
	}
	return p, nil
}

// OpenOrCreate opens the pool at path, or creates it if there is none or only
// a half-created one. It never overwrites anything else.
func OpenOrCreate(path string, o Options) (*Pool, error) {
	o.Overwrite = false
	for {
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
		if p, err = Create(path, o); !errors.Is(err, ErrExists) {
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
	p, err := createIn(f, place{backing: BackingMemory, unit: uint64(os.Getpagesize())}, o)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("create pool: %w", err)
	}
	return p, nil
}

func create(path string, o Options) (*Pool, error) {
	pl, err := placeOf(path)
	if err != nil {
		return nil, err
	}
	_, err = os.Lstat(path)
	exists := err == nil
	if pl.backing == BackingDAX {
		return createDevice(path, o)
	}
	if exists {
		if !o.Overwrite {
			return nil, existsError(path)
		}
		// Whoever has the old one open must not lose it.
		old, _, _, err := openPool(path, false)
		if err != nil {
			return nil, err
		}
		defer old.Close()
	}
	f, err := createFile(path)
	if err != nil {
		return nil, err
	}
	p, err := createIn(f, pl, o)
	if err != nil {
		f.Close()
		return nil, err
	}
	if exists {
		err = os.Remove(path)
	}
	if err == nil {
		err = publish(f, path)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func createDevice(path string, o Options) (*Pool, error) {
	f, pl, _, err := openPool(path, false)
	if err != nil {
		return nil, err
	}
	p, err := func() (*Pool, error) {
		if !o.Overwrite {
			if err := blank(f, pl); err != nil {
				return nil, err
			}
		}
		return createIn(f, pl, o)
	}()
	if err != nil {
		f.Close()
	}
	return p, err
}

// blank fails unless the beginning of a device holds zeros only.
func blank(f *os.File, pl place) error {
	m, err := mapFile(f, max(pl.unit, daxAlign), unix.PROT_READ, 0)
	if err != nil {
		return err
	}
	defer unix.Munmap(m)
	if len(bytes.Trim(m[:daxAlign], "\x00")) != 0 {
		return existsError(f.Name())
	}
	return nil
}

// createIn formats a new pool in f, which the pool takes over on success.
func createIn(f *os.File, pl place, o Options) (*Pool, error) {
	if o.ReadOnly {
		return nil, fmt.Errorf("%s: %w", f.Name(), ErrReadOnly)
	}
	if o.FrameSize == 0 {
		o.FrameSize = DefaultFrameSize
	}
	if o.Size == 0 && pl.backing == BackingDAX {
		o.Size = int64(pl.devSize / pl.unit * pl.unit)
	}
	if o.Size <= 0 || o.LogEntries < 0 {
		return nil, fmt.Errorf("%s: %w: size %d, log entries %d", f.Name(), ErrSize, o.Size, o.LogEntries)
	}
	g, err := layout(roundUp(uint64(o.Size), max(pl.unit, sizeQuantum)), o.FrameSize, uint64(o.LogEntries))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if pl.backing == BackingDAX {
		if g.size > pl.devSize {
			return nil, fmt.Errorf("%w: %s has %d bytes, %d were asked for", ErrSize, f.Name(), pl.devSize, g.size)
		}
	} else {
		// The lock comes before the name, so nobody opens it first.
		if err := lockFile(f, unix.LOCK_EX, 0); err != nil {
			return nil, err
		}
		if err := reserve(f, g.size); err != nil {
			return nil, err
		}
	}
	mapped, err := mapFile(f, g.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_POPULATE)
	if err != nil {
		return nil, err
	}
	s := superblock{geometry: g, created: now()}
	rand.Read(s.uuid[:])
	format(mapped, &cpuPersister{mapped}, s)
	p, err := newPool(mapped, s, o, nil)
	if err != nil {
		unix.Munmap(mapped)
		return nil, err
	}
	p.mapped, p.file, p.path, p.backing = mapped, f, f.Name(), pl.backing
	return p, nil
}

func open(path string, o Options) (*Pool, error) {
	f, pl, writer, err := openPool(path, o.ReadOnly)
	if err != nil {
		return nil, err
	}
	o.writer = writer
	p, err := openIn(f, pl, o)
	if err != nil {
		f.Close()
		return nil, err
	}
	return p, nil
}

func openIn(f *os.File, pl place, o Options) (*Pool, error) {
	b, err := firstBytes(f, pl)
	if err != nil {
		return nil, err
	}
	s, repair, err := readSuper(b)
	switch {
	case err == ErrNotPool && len(b) == 0:
		return nil, fmt.Errorf("%w: %s is empty (0 bytes); remove it, or create a pool over it by force", err, f.Name())
	case err == ErrNotPool:
		return nil, fmt.Errorf("%w: %s does not begin with a pool's superblock; choose another file, or create a pool over it by force", err, f.Name())
	case err == ErrIncomplete:
		return nil, fmt.Errorf("%w: %s; nothing was stored in it, create it again by force", err, f.Name())
	case err != nil:
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	have := pl.devSize
	var st unix.Stat_t
	if pl.backing != BackingDAX {
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return nil, os.NewSyscallError("fstat", err)
		}
		have = uint64(st.Size)
	}
	if have < s.size {
		return nil, fmt.Errorf("%w: %s has %d bytes, its superblock says %d; bring back the rest from a copy", ErrTruncated, f.Name(), have, s.size)
	}
	prot := unix.PROT_READ
	if !o.ReadOnly {
		prot |= unix.PROT_WRITE
		// A copy made by cp may be sparse.
		if pl.backing == BackingTmpfs && uint64(st.Blocks)*512 < s.size {
			if err := reserve(f, s.size); err != nil {
				return nil, err
			}
		}
	}
	mapped, err := mapFile(f, roundUp(s.size, pl.unit), prot, 0)
	if err != nil {
		return nil, err
	}
	if repair && !o.ReadOnly {
		writeSuper(mapped, &cpuPersister{mapped}, &s)
	}
	p, err := newPool(mapped[:s.size], s, o, nil)
	if err != nil {
		unix.Munmap(mapped)
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	p.mapped, p.file, p.path, p.backing = mapped, f, f.Name(), pl.backing
	return p, nil
}

// newPool builds a Pool over mem, which begins with superblock s, and recovers
// its log. per is nil outside tests.
func newPool(mem []byte, s superblock, o Options, per persister) (*Pool, error) {
	p := &Pool{g: s.geometry, mem: mem, uuid: s.uuid, created: s.created, readOnly: o.ReadOnly, writer: o.writer, per: per}
	switch {
	case per != nil:
	case o.NoFlush:
		p.per = &noPersister{mem}
	default:
		p.per = &cpuPersister{mem}
	}
	p.frames.init(p.g.first, p.g.frames)
	p.log = &Log{p: p, seed: uuidSeed(s.uuid)}
	if err := p.log.recover(); err != nil {
		return nil, err
	}
	return p, nil
}

// Mem returns the whole pool, to be registered as a UMEM. Its length is a
// multiple of 4096. It belongs to the pool and is unmapped by Close.
func (p *Pool) Mem() []byte { return p.mem }

// Fd returns the descriptor of the mapped file. It belongs to the pool.
func (p *Pool) Fd() int { return int(p.file.Fd()) }

// FrameSize returns the size of a frame in bytes.
func (p *Pool) FrameSize() int { return int(p.g.frameSize) }

// FrameShift returns the binary logarithm of FrameSize.
func (p *Pool) FrameShift() uint {
	if p.g.frameSize == 4096 {
		return 12
	}
	return 11
}

// Frames returns the number of frame indices, FirstFrame and below included.
func (p *Pool) Frames() uint32 { return p.g.frames }

// FirstFrame returns the index of the first data frame. Lower ones hold the
// superblock and the log.
func (p *Pool) FirstFrame() uint32 { return p.g.first }

// LogEntries returns the capacity of the log in entries (payload fragments).
func (p *Pool) LogEntries() uint64 { return p.g.logLen }

// Frame returns the bytes of data frame i, or nil if there is no such data frame.
func (p *Pool) Frame(i uint32) []byte {
	if i < p.g.first || i >= p.g.frames || p.mem == nil {
		return nil
	}
	off := uint64(i) * uint64(p.g.frameSize)
	end := off + uint64(p.g.frameSize)
	return p.mem[off:end:end]
}

// Backing returns the kind of memory that the pool lives in.
func (p *Pool) Backing() Backing { return p.backing }

// Path returns the path that the pool was opened with.
func (p *Pool) Path() string { return p.path }

// UUID returns the name that the pool was given at its creation.
func (p *Pool) UUID() UUID { return p.uuid }

// Created returns the time of the pool's creation.
func (p *Pool) Created() time.Time { return p.created }

// ReadOnly reports whether the pool was opened without the right to write.
func (p *Pool) ReadOnly() bool { return p.readOnly }

// Live reports whether the pool was opened read-only while a writer had it
// open. What is read is then a snapshot of a pool that changes underneath:
// records may be truncated, and their frames used again, while they are read.
func (p *Pool) Live() bool { return p.writer != "" }

// Writer names the process that had a Live pool open when it was opened, such
// as "process 708 (pastectl)"; it is "" for any other pool.
func (p *Pool) Writer() string { return p.writer }

// Log returns the pool's log.
func (p *Pool) Log() *Log { return p.log }

// Close unmaps the pool and gives up its lock. Nothing is committed by it.
// No method may run at the same time, and no slice of the pool may be used
// afterwards. Further calls return the same result.
func (p *Pool) Close() error {
	p.closeOnce.Do(func() {
		p.frames.close()
		p.log.closed = true
		p.mem = nil
		if p.mapped != nil {
			p.closeErr = unix.Munmap(p.mapped)
			p.mapped = nil
		}
		if p.file != nil {
			p.closeErr = errors.Join(p.closeErr, p.file.Close())
		}
	})
	return p.closeErr
}
