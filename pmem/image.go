package pmem

import (
	"crypto/rand"
	"fmt"
)

// FormatMemory makes an empty pool in mem, memory of the caller's whose length
// is the pool's size, and opens it. What makes it durable is d; nil means the
// CPU's cache instructions. The pool never unmaps mem. Options.Size and
// Overwrite do not matter.
func FormatMemory(mem []byte, d Domain, o Options) (*Pool, error) {
	if o.FrameSize == 0 {
		o.FrameSize = DefaultFrameSize
	}
	g, err := layout(uint64(len(mem)), o.FrameSize, uint64(max(o.LogEntries, 0)))
	if err != nil {
		return nil, fmt.Errorf("create pool in memory: %w", err)
	}
	s := superblock{version: formatVersion, geometry: g, created: now()}
	rand.Read(s.uuid[:])
	if err := format(mem, orCPU(mem, d), s); err != nil {
		return nil, fmt.Errorf("create pool in memory: %w", err)
	}
	return OpenMemory(mem, d, o)
}

// OpenMemory opens the pool that begins mem, as Open does one in a file.
func OpenMemory(mem []byte, d Domain, o Options) (*Pool, error) {
	s, err := readSuper(mem)
	if err == nil && s.size > uint64(len(mem)) {
		err = fmt.Errorf("%w: %d bytes of memory, the superblock says %d", ErrTruncated, len(mem), s.size)
	}
	if err != nil {
		return nil, fmt.Errorf("open pool in memory: %w", err)
	}
	p, err := newPool(mem[:s.size], s, o, d, poolFile{place: place{backing: BackingMemory}})
	if err != nil {
		return nil, fmt.Errorf("open pool in memory: %w", err)
	}
	return p, nil
}

func orCPU(mem []byte, d Domain) Domain {
	if d == nil {
		return &cpuDomain{mem}
	}
	return d
}
