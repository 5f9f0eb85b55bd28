package pmem

import (
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
