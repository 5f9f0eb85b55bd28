package pmem

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// Go's assembler has no STNP, so a copy past the caches is a copy and a flush.
const hasNT = false

// fenceIsLocal: a DSB waits for what its own CPU has cleaned. The kernel's
// thread switch has one; to pass a lock, or a goroutine to another thread, takes none.
const fenceIsLocal = true

// dcLine is the smallest data cache line of the system in bytes, from
// CTR_EL0.DminLine (log2 of words of 4 bytes; Arm ARM, "CTR_EL0").
var dcLine = uintptr(4) << (ctrEL0() >> 16 & 0xf)

// DC CVAP is undefined on cores without FEAT_DPB, which Linux reports as
// HWCAP_DCPOP; DC CVAC is always allowed from user space.
func detectFlush() FlushKind {
	if cpu.ARM64.HasDCPOP {
		return FlushDCCVAP
	}
	return FlushDCCVAC
}

func flushRange(p unsafe.Pointer, n uintptr) {
	if flushKind == FlushDCCVAP {
		flushCVAP(p, n, dcLine)
		return
	}
	flushCVAC(p, n, dcLine)
}

func copyLinesNT(dst, src unsafe.Pointer, n uintptr) {
	d := unsafe.Slice((*byte)(dst), n)
	copy(d, unsafe.Slice((*byte)(src), n))
	Flush(d)
}

//go:noescape
func flushCVAP(p unsafe.Pointer, n, line uintptr)

//go:noescape
func flushCVAC(p unsafe.Pointer, n, line uintptr)

func fence()

func ctrEL0() uint64
