package pmem

import (
	"fmt"
	"os"
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
	// NoFlush leaves out all flushes, fences and syncs: what is stored survives
	// the process, and not the machine, whatever the backing.
	NoFlush bool
	// NoVainFlush is NoFlush for a backing that survives no more than the process in any
	// case: tmpfs, hugetlbfs, memory. Otherwise these are flushed like the persistent
	// memory for which they often stand in.
	NoVainFlush bool
	// Overwrite lets Create replace what is at the path, whatever it is.
	Overwrite bool
	// AllowForeign opens a file for writing even if another user owns it or may
	// write to it. Who can write to a mapped file decides what is read from it,
	// and can end this process by truncating it: see ErrOwner.
	AllowForeign bool

	// Progress, if not nil, is called now and then while the pool is opened,
	// from the goroutine that opens it. A staged pool first counts the bytes
	// that were loaded; every pool then counts data frames known to be in use.
	// The last call has done equal to total.
	Progress func(done, total uint64)
}

// Pool is a mapped pool. Its methods may be called from several goroutines,
// except Close; the Log has rules of its own.
type Pool struct {
	g        geometry
	mem      []byte // the pool
	memory   poolMemory
	file     poolFile
	version  uint32 // of its format
	uuid     UUID
	created  time.Time
	readOnly bool
	seed     uint32 // of checksums: the pool's name
	dom      Domain
	frames   frameTable
	log      *Log
	roots    rootTable
	problems []error          // found at Open
	broken   map[string]error // why roots' structures could not be walked
	progress progress
	users    users
	watch    watch
}

// Open maps the existing pool at path, recovers its log, and lets the
// structures that its roots lead to tell which frames they own; what was found
// is in Log.Recovery and Problems. With o.ReadOnly a damaged pool can be opened
// and inspected; for writing it is refused with ErrDamaged, or with ErrKind if
// a root leads to a structure that this program does not know.
func Open(path string, o Options) (*Pool, error) {
	p, err := open(path, o)
	if err != nil {
		return nil, fmt.Errorf("open pool: %w", err)
	}
	return p, nil
}

func open(path string, o Options) (*Pool, error) {
	f, err := openPool(path, o)
	if err != nil {
		return nil, err
	}
	p, err := openIn(f, o)
	if err != nil {
		f.Close()
		return nil, err
	}
	return p, nil
}

func openIn(f poolFile, o Options) (*Pool, error) {
	if f.backing.Staged() && !o.ReadOnly {
		if err := settle(f.File); err != nil {
			return nil, err
		}
	}
	b, err := firstBytes(&f)
	if err != nil {
		return nil, err
	}
	s, err := readSuper(b)
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
	have := f.devSize
	var st unix.Stat_t
	if f.backing != BackingDAX {
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return nil, os.NewSyscallError("fstat", err)
		}
		have = uint64(st.Size)
	}
	if have < s.size {
		return nil, fmt.Errorf("%w: %s has %d bytes, its superblock says %d; bring back the rest from a copy", ErrTruncated, f.Name(), have, s.size)
	}
	if !o.ReadOnly {
		// A copy made by cp may be sparse.
		if (f.backing == BackingTmpfs || f.backing.Staged()) && uint64(st.Blocks)*512 < s.size {
			if err := reserve(f.File, s.size); err != nil {
				return nil, err
			}
		}
	}
	a, err := openMemory(&f, s.size, o, false)
	if err != nil {
		return nil, err
	}
	f.backing = a.backing
	p, err := newPool(a.mem, s, o, a.dom, f)
	if err != nil {
		a.close()
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	p.memory = a
	if !o.ReadOnly {
		p.watchFile()
	}
	return p, nil
}

// watchFile begins to look after the pool's file, which has its name now.
func (p *Pool) watchFile() {
	if p.file.backing != BackingDAX {
		p.watch.start(&p.file, p.g.size)
	}
}

// newPool builds a Pool over mem, which begins with superblock s, and recovers
// it. dom may be nil for the CPU's instructions. The pool takes f over on success.
func newPool(mem []byte, s superblock, o Options, dom Domain, f poolFile) (*Pool, error) {
	p := &Pool{
		g: s.geometry, mem: mem, version: s.version, uuid: s.uuid, created: s.created, seed: uuidSeed(s.uuid),
		readOnly: o.ReadOnly, file: f, dom: dom, progress: progress{report: o.Progress},
	}
	p.g.runs = s.version >= runsSince
	switch {
	case dom != nil:
	case o.NoFlush, o.NoVainFlush && f.backing.volatile():
		p.dom = &noDomain{mem}
	default:
		p.dom = &cpuDomain{mem}
	}
	p.log = &Log{p: p, seed: p.seed, index: make(logIndex, p.g.logLen)}
	p.watch.lost = make(chan struct{})
	if err := p.Guard(func() error { return p.recover(&s) }); err != nil {
		return nil, err
	}
	return p, nil
}

// recover reads everything before it changes anything.
func (p *Pool) recover(s *superblock) error {
	p.frames.init(p.g.first, p.g.frames)
	bad, err := p.roots.read(p.mem, &p.g, p.seed)
	for range p.retries() {
		if err == nil {
			break
		}
		bad, err = p.roots.read(p.mem, &p.g, p.seed)
	}
	if err != nil {
		p.problem(err)
	}
	if err := p.log.recover(); err != nil {
		p.problem(err) // the structures can be looked at all the same
	}
	p.walkRoots()
	p.progress.finish(uint64(p.g.frames - p.g.first))
	if p.readOnly {
		return nil
	}
	if len(p.problems) > 0 {
		return p.problems[0]
	}
	if s.bad != noneBad {
		if err := writeSuperCopy(p.mem, p.dom, s, s.bad.index()); err != nil {
			return err
		}
	}
	if bad != noneBad {
		if err := writeRootsCopy(p.mem, p.dom, &p.g, p.seed, p.roots.gen, p.roots.list, bad.index()); err != nil {
			return err
		}
	}
	return p.log.begin()
}

func (p *Pool) problem(err error) { p.problems = append(p.problems, err) }

// Problems returns what Open found wrong with a pool that it opened read-only:
// a damaged log, damaged structures, roots of unknown kinds. Frames of which
// these speak may be in use although Refs does not know.
func (p *Pool) Problems() []error { return p.problems }

// RootProblem returns what of Problems is wrong with the structure that a root
// leads to, or nil. Who reads such a structure must check all that it reads.
func (p *Pool) RootProblem(name string) error { return p.broken[name] }

// Mem returns the whole pool, to be registered as a UMEM. Its length is a
// multiple of 4096. It belongs to the pool and is unmapped by Close.
func (p *Pool) Mem() []byte { return p.mem }

// Fd returns the descriptor of the file that Mem maps: of a staged pool that is
// a memfd. It belongs to the pool.
func (p *Pool) Fd() int {
	if p.memory.frames != nil {
		return int(p.memory.frames.Fd())
	}
	return int(p.file.Fd())
}

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
func (p *Pool) Backing() Backing { return p.file.backing }

// Path returns the path that the pool was opened with.
func (p *Pool) Path() string { return p.file.path() }

// UUID returns the name that the pool was given at its creation.
func (p *Pool) UUID() UUID { return p.uuid }

// Version returns the pool's format version: that of the program that made it.
func (p *Pool) Version() int { return int(p.version) }

// Created returns the time of the pool's creation.
func (p *Pool) Created() time.Time { return p.created }

// ReadOnly reports whether the pool was opened without the right to write.
func (p *Pool) ReadOnly() bool { return p.readOnly }

// IsNew reports whether this process has made the pool's file, as opposed to
// found it. A device is never new.
func (p *Pool) IsNew() bool { return p.file.isNew }

// Live reports whether the pool was opened read-only while a writer had it
// open. What is read is then a snapshot of a pool that changes underneath:
// records may be truncated, and their frames used again, while they are read.
func (p *Pool) Live() bool { return p.file.writer != "" }

// retries is how often something with two copies is read again before it
// counts as damaged: the writer of a live pool may have been at the first copy
// when that was read, and at the second one when that was.
func (p *Pool) retries() int {
	if p.Live() {
		return 1000
	}
	return 0
}

// Writer names the process that had a Live pool open when it was opened, such
// as "process 708 (pastectl)"; it is "" for any other pool.
func (p *Pool) Writer() string { return p.file.writer }

// Log returns the pool's log.
func (p *Pool) Log() *Log { return p.log }
