package pmem

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"

	"github.com/go-quicktest/qt"
	"pgregory.net/rapid"
)

func TestFlushName(t *testing.T) {
	qt.Assert(t, qt.Equals(FlushName(), Flusher().String()))
	qt.Assert(t, qt.Not(qt.Equals(FlushName(), "none")))
}

// CopyNT copies exactly its range, whatever the alignment of either side.
func TestCopyNT(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 5000).Draw(t, "n")
		dOff := rapid.IntRange(0, 200).Draw(t, "dst offset")
		sOff := rapid.IntRange(0, 200).Draw(t, "src offset")
		src := make([]byte, sOff+n)
		randomFill(src)
		dst := bytes.Repeat([]byte{0xaa}, dOff+n+200)
		want := bytes.Clone(dst)
		copy(want[dOff:], src[sOff:])
		qt.Assert(tb(t), qt.Equals(CopyNT(dst[dOff:], src[sOff:]), n))
		Fence()
		qt.Assert(tb(t), qt.DeepEquals(dst, want))
	})
}

// Flushing changes nothing and touches no byte outside of whole lines of the
// range: the last line of a mapping is flushed without a fault.
func TestFlushAtTheEndOfAMapping(t *testing.T) {
	p := memory(t, Options{})
	m := p.Mem()
	for _, n := range []int{0, 1, 63, 64, 65, 4096, len(m)} {
		Persist(m[len(m)-n:])
		Persist(m[:n])
	}
	Flush(nil)
}

func BenchmarkFlush(b *testing.B) {
	p := memory(b, Options{Size: 16 << 20})
	for _, n := range []int{64, 1024, 65536} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(n))
			m := p.Mem()[int(p.FirstFrame())*p.FrameSize():][:n]
			for b.Loop() {
				for i := 0; i < n; i += 64 {
					m[i]++
				}
				Persist(m)
			}
		})
	}
}

func BenchmarkCopyNT(b *testing.B) {
	p := memory(b, Options{Size: 16 << 20})
	for _, n := range []int{64, 1024, 65536} {
		src := make([]byte, n)
		dst := p.Mem()[int(p.FirstFrame())*p.FrameSize():][:n]
		b.Run(fmt.Sprintf("nt/%d", n), func(b *testing.B) {
			b.SetBytes(int64(n))
			for b.Loop() {
				CopyNT(dst, src)
				Fence()
			}
		})
		b.Run(fmt.Sprintf("copy+flush/%d", n), func(b *testing.B) {
			b.SetBytes(int64(n))
			for b.Loop() {
				copy(dst, src)
				Persist(dst)
			}
		})
	}
}

func BenchmarkLog(b *testing.B) {
	for _, n := range []int{64, 1024} {
		payload := make([]byte, n)
		for _, batch := range []int{1, 32} {
			b.Run(fmt.Sprintf("append/%d/batch=%d", n, batch), func(b *testing.B) {
				p := memory(b, Options{Size: 64 << 20})
				l := p.Log()
				var f [32]uint32
				p.Alloc(f[:])
				var frags [1]Fragment
				benchLog(b, l, batch, func(i int) {
					p.Frame(f[i])[0]++ // the line is dirty, as after a receive
					frags[0] = Fragment{Frame: f[i], Len: uint16(n)}
					l.Append(frags[:], true)
				})
			})
			b.Run(fmt.Sprintf("copy/%d/batch=%d", n, batch), func(b *testing.B) {
				p := memory(b, Options{Size: 64 << 20})
				l := p.Log()
				benchLog(b, l, batch, func(int) { l.AppendCopy(payload) })
			})
		}
	}
}

// benchLog counts one operation per record.
func benchLog(b *testing.B, l *Log, batch int, add func(i int)) {
	runtime.GC()
	b.ResetTimer()
	for i := 0; i < b.N; i += batch {
		for k := range batch {
			add(k)
		}
		l.Commit()
		if l.Len() >= 4096 {
			l.Truncate(l.Next() - 1)
		}
	}
}
