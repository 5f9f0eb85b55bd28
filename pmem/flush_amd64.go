package pmem

import "unsafe"

const hasNT = true

// fenceIsLocal: a fence counts for its own CPU, but so does the locked
// instruction without which nothing gets from one goroutine to another.
const fenceIsLocal = false

// detectFlush reads CPUID leaf 7, sub-leaf 0: EBX bit 24 is CLWB, bit 23
// CLFLUSHOPT (Intel SDM vol. 2A, "CPUID"). x/sys/cpu does not report them.
func detectFlush() FlushKind {
	if maxLeaf, _, _, _ := cpuid(0, 0); maxLeaf >= 7 {
		_, ebx, _, _ := cpuid(7, 0)
		switch {
		case ebx&(1<<24) != 0:
			return FlushCLWB
		case ebx&(1<<23) != 0:
			return FlushCLFLUSHOPT
		}
	}
	return FlushCLFLUSH
}

func flushRange(p unsafe.Pointer, n uintptr) {
	switch flushKind {
	case FlushCLWB:
		flushCLWB(p, n)
	case FlushCLFLUSHOPT:
		flushCLFLUSHOPT(p, n)
	default:
		flushCLFLUSH(p, n)
	}
}

//go:noescape
func flushCLWB(p unsafe.Pointer, n uintptr)

//go:noescape
func flushCLFLUSHOPT(p unsafe.Pointer, n uintptr)

//go:noescape
func flushCLFLUSH(p unsafe.Pointer, n uintptr)

// copyLinesNT copies n bytes, a multiple of 64, to dst, aligned to 64.
//
//go:noescape
func copyLinesNT(dst, src unsafe.Pointer, n uintptr)

func fence()

func cpuid(leaf, sub uint32) (eax, ebx, ecx, edx uint32)
