package hist

import "slices"

// Snapshot is what a histogram has counted up to a moment, or between two.
type Snapshot struct {
	Count   uint64   `json:"count"`
	Sum     uint64   `json:"sum"`
	Buckets []Bucket `json:"buckets,omitempty"` // those that are not empty, in order
}

// Bucket is how many values were at most Upper, and more than the bucket before allows
// for. Upper is one of a fixed series, the same in every histogram.
type Bucket struct {
	Upper uint64 `json:"upper"`
	Count uint64 `json:"count"`
}

// Add adds what another histogram has counted.
func (s *Snapshot) Add(o Snapshot) { *s = combine(*s, o, func(a, b uint64) uint64 { return a + b }) }

// Since is what was counted after an earlier snapshot of the same histogram.
func (s Snapshot) Since(earlier Snapshot) Snapshot {
	return combine(s, earlier, func(a, b uint64) uint64 { return a - min(a, b) })
}

func combine(a, b Snapshot, op func(a, b uint64) uint64) Snapshot {
	out := Snapshot{Sum: op(a.Sum, b.Sum)}
	for len(a.Buckets) > 0 || len(b.Buckets) > 0 {
		var next Bucket
		switch {
		case len(b.Buckets) == 0 || len(a.Buckets) > 0 && a.Buckets[0].Upper < b.Buckets[0].Upper:
			next, a.Buckets = Bucket{a.Buckets[0].Upper, op(a.Buckets[0].Count, 0)}, a.Buckets[1:]
		case len(a.Buckets) == 0 || b.Buckets[0].Upper < a.Buckets[0].Upper:
			next, b.Buckets = Bucket{b.Buckets[0].Upper, op(0, b.Buckets[0].Count)}, b.Buckets[1:]
		default:
			next = Bucket{a.Buckets[0].Upper, op(a.Buckets[0].Count, b.Buckets[0].Count)}
			a.Buckets, b.Buckets = a.Buckets[1:], b.Buckets[1:]
		}
		if next.Count > 0 {
			out.Count += next.Count
			out.Buckets = append(out.Buckets, next)
		}
	}
	return out
}

// Quantile is a value that a part q of all, from 0 to 1, does not exceed; 0 if there
// are none. It is at most a quarter too large.
func (s Snapshot) Quantile(q float64) uint64 {
	if s.Count == 0 {
		return 0
	}
	rest := q * float64(s.Count)
	for _, b := range s.Buckets {
		if rest -= float64(b.Count); rest <= 0 {
			return b.Upper
		}
	}
	return s.Buckets[len(s.Buckets)-1].Upper
}

// Mean is the mean of all values; 0 if there are none.
func (s Snapshot) Mean() float64 {
	if s.Count == 0 {
		return 0
	}
	return float64(s.Sum) / float64(s.Count)
}

// Below counts how many values were at most each of the limits, which are in order.
// A bucket counts with the first limit that is not below its end.
func (s Snapshot) Below(limits []uint64) []uint64 {
	counts := make([]uint64, len(limits))
	for _, b := range s.Buckets {
		if i, _ := slices.BinarySearch(limits, b.Upper); i < len(limits) {
			counts[i] += b.Count
		}
	}
	for i := 1; i < len(counts); i++ {
		counts[i] += counts[i-1]
	}
	return counts
}
