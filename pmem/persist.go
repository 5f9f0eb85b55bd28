package pmem

// persister is how the pool's code makes its stores durable. Offsets are
// bytes from the start of the mapping. Every store of the package is followed
// by a flush of its range, or goes through copyNT, so that a test can put an
// image of "what would have survived" behind this interface. One call covers a
// range, so the indirection costs nothing against the flush itself.
type persister interface {
	// flush starts the write-back of every line in [off, off+n).
	flush(off, n uint64)
	// fence waits for all earlier flush and copyNT calls.
	fence()
	// copyNT stores src at off, past the caches; durable after the next fence.
	copyNT(off uint64, src []byte)
}

// cpuPersister flushes with the CPU's instructions.
type cpuPersister struct{ mem []byte }

func (c *cpuPersister) flush(off, n uint64)           { Flush(c.mem[off : off+n]) }
func (c *cpuPersister) fence()                        { Fence() }
func (c *cpuPersister) copyNT(off uint64, src []byte) { CopyNT(c.mem[off:], src) }

// noPersister stores and never flushes: Options.NoFlush.
type noPersister struct{ mem []byte }

func (*noPersister) flush(off, n uint64)             {}
func (*noPersister) fence()                          {}
func (m *noPersister) copyNT(off uint64, src []byte) { copy(m.mem[off:], src) }
