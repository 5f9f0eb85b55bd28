package pmem

import (
	"hash/crc32"
	"unsafe"
)

// The functions of this file take the checksum of a payload in the pass that
// makes it durable: what is loaded once for the one is not loaded again for the
// other. Without the CPU's help they are the two passes.

// copySum stores src at dst past the caches, flushes it as CopyNT does, and
// returns its CRC-32C, with that of what comes before it, sum. dst begins a cache line, and all of the last line that it
// touches belongs to the caller: the rest of that becomes zeros, as a whole line
// is stored without being read first.
func copySum(dst, src []byte, sum uint32) uint32 {
	if !hasOnePass {
		CopyNT(dst, src)
		return crc32.Update(sum, castagnoli, src)
	}
	n := uintptr(len(src))
	d, s := unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(src))
	sum = ^copySumLines(d, s, n, ^sum)
	if whole := n &^ (CacheLine - 1); whole < n {
		var last [CacheLine]byte
		copy(last[:], src[whole:])
		copyLinesNT(unsafe.Add(d, whole), unsafe.Pointer(&last), CacheLine)
	}
	return sum
}

// flushSum is Flush, and returns the CRC-32C of p.
func flushSum(p []byte) uint32 {
	switch {
	case len(p) == 0:
		return 0
	case !hasFlushSum:
		sum := crc32.Checksum(p, castagnoli)
		Flush(p)
		return sum
	}
	return ^flushSumRange(unsafe.Pointer(unsafe.SliceData(p)), uintptr(len(p)), ^uint32(0))
}

func (c *cpuDomain) CopySum(off uint64, src []byte, sum uint32) uint32 {
	return copySum(c.mem[off:roundUp(off+uint64(len(src)), CacheLine)], src, sum)
}
func (c *cpuDomain) FlushSum(off, n uint64) uint32 { return flushSum(c.mem[off : off+n]) }

// copySum is CopyNT to the beginning of a cache line, and returns the CRC-32C
// of what comes before src, whose checksum is sum, and src. What lies behind src
// in its last line is lost.
func (p *Pool) copySum(off uint64, src []byte, sum uint32) uint32 {
	if c, ok := p.dom.(*cpuDomain); ok {
		return c.CopySum(off, src, sum)
	}
	copy(p.mem[off:], src)
	p.Flush(off, uint64(len(src)))
	return crc32.Update(sum, castagnoli, src)
}

// handOver is called after flushes that another goroutine's Fence is to cover.
func (p *Pool) handOver() {
	if c, ok := p.dom.(*cpuDomain); ok {
		c.handOver()
	}
}

// flushSum is Flush, and returns the CRC-32C of what it flushes.
func (p *Pool) flushSum(off, n uint64) uint32 {
	if c, ok := p.dom.(*cpuDomain); ok {
		return c.FlushSum(off, n)
	}
	p.Flush(off, n)
	return crc32.Checksum(p.mem[off:off+n], castagnoli)
}
