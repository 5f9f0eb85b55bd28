package pmem

import (
	"hash/crc32"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// hasOnePass: the instructions PCLMULQDQ and CRC32. MOVNTDQ is in every amd64.
var hasOnePass = cpu.X86.HasPCLMULQDQ && cpu.X86.HasSSE42

// hasFlushSum: CLFLUSH and CLFLUSHOPT evict the line, so there the checksum is
// better taken of all of it first.
var hasFlushSum = hasOnePass && flushKind == FlushCLWB

// copySumNT stores the whole lines of src[:n] at dst, aligned to 64, with
// non-temporal stores, and returns the checksum of all n bytes. As that of
// flushSumCLWB it begins with crc and is not inverted, neither before nor after.
//
//go:noescape
func copySumNT(dst, src unsafe.Pointer, n uintptr, crc uint32) uint32

// flushSumCLWB writes back each line that [p, p+n) touches; n is not 0.
//
//go:noescape
func flushSumCLWB(p unsafe.Pointer, n uintptr, crc uint32) uint32

func copySumLines(dst, src unsafe.Pointer, n uintptr, crc uint32) uint32 {
	return copySumNT(dst, src, n, crc)
}

func flushSumRange(p unsafe.Pointer, n uintptr, crc uint32) uint32 { return flushSumCLWB(p, n, crc) }

// foldKeys are the constants of folding over 64, 48, 32 and 16 bytes.
//
//lint:ignore U1000 onepass_amd64.s loads them
var foldKeys = func() (keys [8]uint64) {
	for i, bits := range []int{512, 384, 256, 128} {
		keys[2*i], keys[2*i+1] = powerMod(bits+32), powerMod(bits-32)
	}
	return keys
}()

// powerMod returns x^n modulo the polynomial of CRC-32C, its bits reflected, and
// one further to the left, as a carry-less product of reflected factors wants it.
func powerMod(n int) uint64 {
	r := uint32(1) << 31 // x^0
	for range n {
		r = r>>1 ^ -(r&1)&crc32.Castagnoli
	}
	return uint64(r) << 1
}
