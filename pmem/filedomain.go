package pmem

import (
	"fmt"
	"slices"
	"sync"
)

// storage is the part of a file that a fileDomain needs; tests make it fail.
type storage interface {
	WriteAt(b []byte, off int64) (int, error)
	// Sync returns when everything written is on the medium.
	Sync() error
}

// span is a range of bytes of a pool.
type span struct{ off, end uint64 }

// fileDomain makes stores to memory durable in an ordinary file: Flush notes
// what to write, Fence writes all of it and syncs once, for everybody who
// flushed before (group commit). What nobody flushes is never written.
type fileDomain struct {
	mem    []byte
	file   storage
	noSync bool // Options.NoFlush

	mu      sync.Mutex
	pending []span

	// ioMu is held while a batch is written: whoever comes meanwhile waits, so
	// that nobody's Fence returns before the batch that holds its spans is durable.
	ioMu  sync.Mutex
	batch []span // to be used again
	err   error  // the first one, for good
}

func (d *fileDomain) Flush(off, n uint64) {
	if n == 0 {
		return
	}
	s := span{off &^ (CacheLine - 1), min(roundUp(off+n, CacheLine), uint64(len(d.mem)))}
	d.mu.Lock()
	defer d.mu.Unlock()
	// Fragments of a body often follow each other.
	if k := len(d.pending); k > 0 && d.pending[k-1].end == s.off {
		d.pending[k-1].end = s.end
		return
	}
	d.pending = append(d.pending, s)
}

// Order does nothing: it would cost a sync of its own.
func (d *fileDomain) Order() (bool, error) {
	d.ioMu.Lock()
	defer d.ioMu.Unlock()
	return false, d.err
}

func (d *fileDomain) Fence() error {
	d.ioMu.Lock()
	defer d.ioMu.Unlock()
	if d.err != nil {
		return d.err
	}
	d.mu.Lock()
	batch := d.pending
	d.pending = d.batch[:0]
	d.mu.Unlock()
	d.batch = batch
	if len(batch) == 0 {
		return nil
	}
	if err := d.write(batch); err != nil {
		// The kernel marks pages clean that it could not write, and reports that
		// once: a second sync would succeed and mean nothing.
		d.err = fmt.Errorf("%w: %w; what the last commits stored may be lost, open the pool again to see what is there", ErrIO, err)
	}
	return d.err
}

func (d *fileDomain) write(batch []span) error {
	slices.SortFunc(batch, func(a, b span) int {
		if a.off < b.off {
			return -1
		}
		return 1
	})
	for i := 0; i < len(batch); {
		s := batch[i]
		for i++; i < len(batch) && batch[i].off <= s.end; i++ {
			s.end = max(s.end, batch[i].end)
		}
		if _, err := d.file.WriteAt(d.mem[s.off:s.end], int64(s.off)); err != nil {
			return err
		}
	}
	if d.noSync {
		return nil
	}
	return d.file.Sync()
}

// daxDomain makes stores to memory durable in a file on fs-DAX, which cannot
// be a UMEM itself: Flush stores the range into the mapped file, past the
// caches.
type daxDomain struct {
	mem    []byte
	mapped []byte      // the file
	cpu    interface { // stores to mapped
		CopyNT(off uint64, src []byte)
		Order() (bool, error)
		Fence() error
	}
	mu sync.Mutex // two flushes of one line must not overtake each other
}

func (d *daxDomain) Flush(off, n uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cpu.CopyNT(off, d.mem[off:off+n])
}

func (d *daxDomain) Order() (bool, error) { return d.cpu.Order() }
func (d *daxDomain) Fence() error         { return d.cpu.Fence() }
