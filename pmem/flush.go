package pmem

import (
	"runtime"
	"unsafe"
)

// CacheLine is the unit of flushing in bytes that the pool's format is built
// on: a log entry fills exactly one line. (arm64 cores with longer lines flush
// more than one entry at a time, which is harmless.)
const CacheLine = 64

// FlushKind is the instruction that moves a cache line towards the
// persistence domain.
type FlushKind uint8

// The instructions known, best first per architecture.
const (
	FlushCLWB       FlushKind = iota + 1 // amd64: write back, line stays in the cache
	FlushCLFLUSHOPT                      // amd64: write back and evict, weakly ordered
	FlushCLFLUSH                         // amd64: write back and evict, serialising
	FlushDCCVAP                          // arm64: clean to the point of persistence (FEAT_DPB)
	FlushDCCVAC                          // arm64: clean to the point of coherency
)

func (k FlushKind) String() string {
	switch k {
	case FlushCLWB:
		return "clwb"
	case FlushCLFLUSHOPT:
		return "clflushopt"
	case FlushCLFLUSH:
		return "clflush"
	case FlushDCCVAP:
		return "dc cvap"
	case FlushDCCVAC:
		return "dc cvac"
	}
	return "none"
}

var flushKind = detectFlush()

// Flusher returns the flush instruction that this CPU offers, chosen once at start.
func Flusher() FlushKind { return flushKind }

// FlushName returns the name of the flush instruction in use, such as "clwb".
func FlushName() string { return flushKind.String() }

// Flush starts the write-back of every cache line that p touches. The lines
// are only certain to have left the caches after the next Fence.
func Flush(p []byte) {
	if len(p) == 0 {
		return
	}
	flushRange(unsafe.Pointer(unsafe.SliceData(p)), uintptr(len(p)))
}

// Fence waits until every earlier Flush and CopyNT of this thread has reached
// the persistence domain (SFENCE; DSB ISH on arm64).
//
// The fence counts for the CPU that executes it. On amd64 the locked
// instructions of a goroutine's or thread's hand-over order earlier flushes as
// well; on arm64 only the kernel's thread switch does, so there a goroutine
// that flushes and fences should be locked to its thread.
func Fence() { fence() }

// pin keeps the goroutine on its thread from a flush to the fence that is to
// cover it, where that matters; unpin ends that.
func pin() {
	if fenceIsLocal {
		runtime.LockOSThread()
	}
}

func unpin() {
	if fenceIsLocal {
		runtime.UnlockOSThread()
	}
}

// handOver is called after flushes that another goroutine's fence is to cover.
func (c *cpuDomain) handOver() {
	if fenceIsLocal {
		fence()
	}
}

// Persist is Flush followed by Fence.
func Persist(p []byte) {
	Flush(p)
	fence()
}

// ntMin is the length below which a non-temporal copy does not pay: setting
// up the aligned body costs more than flushing a few lines.
const ntMin = 4 * CacheLine

// CopyNT copies min(len(dst), len(src)) bytes past the caches and returns that
// number. Whole cache lines of dst are written with non-temporal stores, what
// remains at either end with ordinary stores and Flush. As after Flush, the
// data is only durable after the next Fence. dst and src must not overlap.
func CopyNT(dst, src []byte) int {
	n := min(len(dst), len(src))
	if n < ntMin || !hasNT {
		n = copy(dst, src)
		Flush(dst[:n])
		return n
	}
	d := unsafe.Pointer(unsafe.SliceData(dst))
	head := int(-uintptr(d) & (CacheLine - 1))
	if head > 0 {
		copy(dst[:head], src[:head])
		Flush(dst[:head])
	}
	body := (n - head) &^ (CacheLine - 1)
	copyLinesNT(unsafe.Add(d, head), unsafe.Add(unsafe.Pointer(unsafe.SliceData(src)), head), uintptr(body))
	if tail := head + body; tail < n {
		copy(dst[tail:n], src[tail:n])
		Flush(dst[tail:n])
	}
	return n
}
