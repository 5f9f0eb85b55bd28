package pmem

import (
	"bytes"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// sumCases calls f with every length from 0 to 300 at every alignment, and with
// long random ranges. Each begins or ends at a page that cannot be read.
func sumCases(t *testing.T, f func(b []byte)) {
	const size = 64 << 10
	page := unix.Getpagesize()
	m, err := unix.Mmap(-1, 0, size+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { unix.Munmap(m) })
	qt.Assert(t, qt.IsNil(unix.Mprotect(m[:page], unix.PROT_NONE)))
	qt.Assert(t, qt.IsNil(unix.Mprotect(m[page+size:], unix.PROT_NONE)))
	m = m[page : page+size]
	randomFill(m)
	for n := range 301 {
		for at := range CacheLine {
			f(m[at : at+n])
			f(m[size-at-n : size-at])
		}
	}
	for range 2000 {
		at := rand.IntN(size)
		f(m[at : at+rand.IntN(size-at+1)])
	}
}

// bothWays runs f with what the CPU offers, and without.
func bothWays(t *testing.T, f func(t *testing.T)) {
	t.Run("one pass", f)
	t.Run("two passes", func(t *testing.T) {
		one, flush := hasOnePass, hasFlushSum
		defer func() { hasOnePass, hasFlushSum = one, flush }()
		hasOnePass, hasFlushSum = false, false
		f(t)
	})
}

func TestFlushSum(t *testing.T) { bothWays(t, testFlushSum) }
func TestCopySum(t *testing.T)  { bothWays(t, testCopySum) }

func testFlushSum(t *testing.T) {
	sumCases(t, func(b []byte) {
		if got, want := flushSum(b), crc32.Checksum(b, castagnoli); got != want {
			t.Fatalf("%d bytes at %p: %#x, want %#x", len(b), b, got, want)
		}
	})
	Fence()
}

// copySum stores all of its source, zeros up to the end of the line, and
// nothing behind that.
func testCopySum(t *testing.T) {
	p := memory(t, Options{Size: 4 << 20})
	room := p.Mem()[p.Offset(p.FirstFrame(), 0):]
	sumCases(t, func(src []byte) {
		n, end := len(src), int(roundUp(uint64(len(src)), CacheLine))
		dst := room[:end+CacheLine]
		for i := n &^ (CacheLine - 1); i < len(dst); i++ {
			dst[i] = 0xaa
		}
		got := copySum(dst[:end], src, 0)
		Fence()
		if want := crc32.Checksum(src, castagnoli); got != want {
			t.Fatalf("%d bytes at %p: %#x, want %#x", n, src, got, want)
		}
		if !bytes.Equal(dst[:n], src) {
			t.Fatalf("%d bytes at %p: not what was to be copied", n, src)
		}
		for i, c := range dst[n:] {
			if hasOnePass && n+i < end && c != 0 || n+i >= end && c != 0xaa {
				t.Fatalf("%d bytes: byte %d behind them is %#x", n, i, c)
			}
		}
	})
}
