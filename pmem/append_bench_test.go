package pmem

import (
	"fmt"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// benchSizes are payloads of a short message, a record of a write-ahead log, a
// page and a large body.
var benchSizes = []int{64, 1000, 1024, 8192, 65536}

// BenchmarkAppend is the life of a record: append, a 32nd of a commit, and its
// share of a truncation. The destination of a copy is in no cache near the CPU,
// as in a pool that is larger than they are; what is in place was just received.
func BenchmarkAppend(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("copied/%d", n), func(b *testing.B) {
			payload := make([]byte, n)
			randomFill(payload)
			benchAppend(b, n, func(_ *Pool, l *Log) error {
				_, err := l.AppendCopy(payload)
				return err
			})
		})
		b.Run(fmt.Sprintf("place/%d", n), func(b *testing.B) {
			var sets [32][]Fragment
			turn := 0
			benchAppend(b, n, func(p *Pool, l *Log) error {
				frags := &sets[turn%len(sets)]
				turn++
				if *frags == nil {
					*frags = fragmentsOf(p, n)
				}
				for _, f := range *frags {
					for m := p.Frame(f.Frame)[:f.Len]; len(m) > 0; m = m[min(CacheLine, len(m)):] {
						m[0]++
					}
				}
				_, err := l.Append(*frags, true)
				return err
			})
		})
	}
}

// fragmentsOf takes frames for n bytes.
func fragmentsOf(p *Pool, n int) []Fragment {
	fs := p.FrameSize()
	frames := make([]uint32, (n+fs-1)/fs)
	p.Alloc(frames)
	frags := make([]Fragment, len(frames))
	for i, f := range frames {
		frags[i] = Fragment{Frame: f, Len: uint16(min(n-i*fs, fs))}
	}
	return frags
}

func benchAppend(b *testing.B, n int, add func(*Pool, *Log) error) {
	const batch, volume = 32, 64 << 20
	p := memory(b, Options{Size: 2 * volume, LogEntries: 1 << 17})
	l := p.Log()
	keep := max(batch, min(volume/max(n, 2048), 1<<15)) // records, before they are dropped
	b.SetBytes(int64(n))
	b.ReportAllocs()
	b.ResetTimer()
	start := cpuTime(b)
	for i := 0; i < b.N; i++ {
		if err := add(p, l); err != nil {
			b.Fatal(err)
		}
		if i%batch != batch-1 {
			continue
		}
		if err := l.Commit(); err != nil {
			b.Fatal(err)
		}
		if l.Len() >= keep {
			if err := l.Truncate(l.Next() - 1); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric((cpuTime(b)-start)/float64(b.N), "cpu-ns/op")
}

// cpuTime returns the nanoseconds that the process has run: on a machine that
// others use as well, time on the clock says less.
func cpuTime(b *testing.B) float64 {
	var r unix.Rusage
	qt.Assert(b, qt.IsNil(unix.Getrusage(unix.RUSAGE_SELF, &r)))
	return float64(r.Utime.Nano() + r.Stime.Nano())
}
