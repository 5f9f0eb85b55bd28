package pmem

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// The loops step by 64 bytes, so a line must have as many. STNP is only a hint
// and spares no DC, so the store is an ordinary one.
var (
	hasOnePass  = cpu.ARM64.HasCRC32 && dcLine == CacheLine
	hasFlushSum = hasOnePass
)

// copySumLines stores the whole lines of src[:n] at dst, aligned to 64, cleans
// them, and returns the checksum of all n bytes. As that of flushSumRange it
// begins with crc and is not inverted, neither before nor after.
func copySumLines(dst, src unsafe.Pointer, n uintptr, crc uint32) uint32 {
	if flushKind == FlushDCCVAP {
		return copySumCVAP(dst, src, n, crc)
	}
	return copySumCVAC(dst, src, n, crc)
}

// flushSumRange cleans each line that [p, p+n) touches; n is not 0.
func flushSumRange(p unsafe.Pointer, n uintptr, crc uint32) uint32 {
	if flushKind == FlushDCCVAP {
		return flushSumCVAP(p, n, crc)
	}
	return flushSumCVAC(p, n, crc)
}

//go:noescape
func copySumCVAP(dst, src unsafe.Pointer, n uintptr, crc uint32) uint32

//go:noescape
func copySumCVAC(dst, src unsafe.Pointer, n uintptr, crc uint32) uint32

//go:noescape
func flushSumCVAP(p unsafe.Pointer, n uintptr, crc uint32) uint32

//go:noescape
func flushSumCVAC(p unsafe.Pointer, n uintptr, crc uint32) uint32
