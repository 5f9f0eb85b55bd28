// Package hist counts how often values of a kind occur: sizes, and times in
// nanoseconds. To record one costs two atomic additions and takes no lock; who
// wants to keep other CPUs out of its cache lines has a histogram for each thread.
package hist

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Buckets are log-linear: each power of two is cut into 1<<subBits parts, so that a
// bucket is at most a quarter wider than where it begins.
const (
	subBits = 2
	subs    = 1 << subBits
	// most is the largest exponent: what is longer than 1<<most counts as that, which
	// is 18 minutes in nanoseconds.
	most    = 40
	buckets = (most-subBits+1)*subs + 1
)

// Hist is a histogram. Its zero value is ready. All methods may be called from any
// goroutine.
type Hist struct {
	sum    atomic.Uint64
	counts [buckets]atomic.Uint64
}

// Record counts one value.
func (h *Hist) Record(v uint64) { h.RecordN(v, 1) }

// RecordN counts a value n times.
func (h *Hist) RecordN(v, n uint64) {
	h.sum.Add(v * n)
	h.counts[index(v)].Add(n)
}

// Since counts the time since t.
func (h *Hist) Since(t time.Time) { h.Duration(time.Since(t)) }

// Duration counts a time. One below zero counts as zero.
func (h *Hist) Duration(d time.Duration) { h.Record(uint64(max(d, 0))) }

// index is the bucket of a value.
func index(v uint64) int {
	if v < subs {
		return int(v)
	}
	exp := bits.Len64(v) - 1 // v is at least 1<<exp
	if exp >= most {
		return buckets - 1
	}
	return (exp-subBits+1)*subs + int(v>>(exp-subBits))&(subs-1)
}

// upper is the largest value of a bucket; the last one has none.
func upper(i int) uint64 {
	if i < subs {
		return uint64(i)
	}
	exp := i/subs + subBits - 1
	return 1<<exp + uint64(i%subs+1)<<(exp-subBits) - 1
}

// Snapshot is what the histogram has counted so far. While others record, its parts
// may be of slightly different moments.
func (h *Hist) Snapshot() Snapshot {
	var s Snapshot
	for i := range h.counts {
		if n := h.counts[i].Load(); n > 0 {
			s.Count += n
			s.Buckets = append(s.Buckets, Bucket{Upper: upper(i), Count: n})
		}
	}
	s.Sum = h.sum.Load()
	return s
}
