package hist

import (
	"math"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"pgregory.net/rapid"
)

// Each value is in the bucket whose end is the first that is not below it, and which
// is at most a quarter wider than where it begins.
func TestBuckets(t *testing.T) {
	for i := range buckets - 1 {
		qt.Assert(t, qt.Equals(index(upper(i)), i))
		qt.Assert(t, qt.Equals(index(upper(i)+1), i+1))
		if i > 0 {
			begin := upper(i-1) + 1
			qt.Assert(t, qt.IsTrue(upper(i)-begin <= begin/subs), qt.Commentf("%d to %d", begin, upper(i)))
		}
	}
	qt.Check(t, qt.Equals(index(math.MaxUint64), buckets-1))
}

func TestSnapshot(t *testing.T) {
	var h Hist
	for v := range uint64(1000) {
		h.Record(v + 1)
	}
	h.Duration(-time.Second)
	s := h.Snapshot()
	qt.Check(t, qt.Equals(s.Count, 1001))
	qt.Check(t, qt.Equals(s.Sum, 500500))
	for _, q := range []float64{0.5, 0.9, 0.99, 1} {
		v := float64(s.Quantile(q))
		qt.Check(t, qt.IsTrue(v >= q*1000-1 && v <= q*1250), qt.Commentf("%v: %v", q, v))
	}
	qt.Check(t, qt.DeepEquals(s.Below([]uint64{0, 7, 1023, 4095}), []uint64{1, 8, 1001, 1001}))
	qt.Check(t, qt.Equals(Snapshot{}.Quantile(0.5), 0))

	h.RecordN(5, 3)
	later := h.Snapshot()
	d := later.Since(s)
	qt.Check(t, qt.DeepEquals(d, Snapshot{Count: 3, Sum: 15, Buckets: []Bucket{{5, 3}}}))
	qt.Check(t, qt.Equals(d.Mean(), 5))
	s.Add(d)
	qt.Check(t, qt.DeepEquals(s, later))
}

// Sums and differences of snapshots are those of what was recorded.
func TestCombine(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		values := rapid.SliceOf(rapid.Uint64Range(0, 1<<30))
		var first, second, both Hist
		for _, v := range values.Draw(rt, "first") {
			first.Record(v)
			both.Record(v)
		}
		for _, v := range values.Draw(rt, "second") {
			second.Record(v)
			both.Record(v)
		}
		sum := first.Snapshot()
		sum.Add(second.Snapshot())
		if !reflect.DeepEqual(sum, both.Snapshot()) {
			rt.Fatalf("%v, want %v", sum, both.Snapshot())
		}
		if d := sum.Since(first.Snapshot()); !reflect.DeepEqual(d, second.Snapshot()) {
			rt.Fatalf("%v, want %v", d, second.Snapshot())
		}
	})
}

// Recording and looking at the same time is allowed, and nothing is lost.
func TestConcurrent(t *testing.T) {
	var h Hist
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for v := range uint64(1000) {
				h.Record(v)
				if v%100 == 0 {
					h.Snapshot()
				}
			}
		}()
	}
	wg.Wait()
	qt.Check(t, qt.Equals(h.Snapshot().Count, 4000))
}

func BenchmarkRecord(b *testing.B) {
	var h Hist
	for i := range b.N {
		h.Record(uint64(i))
	}
}
