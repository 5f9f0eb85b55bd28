package pmem

import (
	"testing"

	"github.com/go-quicktest/qt"
	"pgregory.net/rapid"
)

// TestAllocRun: whatever is taken and given back, by one frame or by runs, no frame
// has two owners, a run is one stretch, and nothing gets lost.
func TestAllocRun(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, err := NewMemory("runs", Options{Size: 1 << 20, LogEntries: 64})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		all := p.Free()
		owned := map[uint32]bool{}
		var held [][]uint32
		take := func(frames []uint32) {
			for _, f := range frames {
				if owned[f] || f < p.FirstFrame() || f >= p.Frames() {
					t.Fatalf("frame %d was given out twice, or is none", f)
				}
				owned[f] = true
			}
			held = append(held, frames)
		}
		t.Repeat(map[string]func(*rapid.T){
			"alloc": func(t *rapid.T) {
				frames := make([]uint32, rapid.IntRange(1, 200).Draw(t, "n"))
				n := p.Alloc(frames)
				if want := min(len(frames), all-len(owned)); n != want {
					t.Fatalf("%d frames, want %d", n, want)
				}
				for _, f := range frames[:n] {
					take([]uint32{f})
				}
			},
			"run": func(t *rapid.T) {
				n := rapid.IntRange(1, 64).Draw(t, "n")
				first, ok := p.AllocRun(n)
				if !ok {
					if len(owned) == 0 {
						t.Fatal("no run in an empty pool")
					}
					return
				}
				var frames []uint32
				for i := range n {
					frames = append(frames, first+uint32(i))
				}
				take(frames)
			},
			"give": func(t *rapid.T) {
				for range min(len(held), 40) {
					i := rapid.IntRange(0, len(held)-1).Draw(t, "which")
					p.UnrefAll(held[i])
					for _, f := range held[i] {
						delete(owned, f)
					}
					held[i] = held[len(held)-1]
					held = held[:len(held)-1]
				}
			},
			"": func(t *rapid.T) {
				if p.Free() != all-len(owned) {
					t.Fatalf("%d free, want %d", p.Free(), all-len(owned))
				}
			},
		})
	})
}

// TestAllocRunTooLong: what the pool does not have in one stretch is refused.
func TestAllocRunTooLong(t *testing.T) {
	p, err := NewMemory("runs", Options{Size: 1 << 20, LogEntries: 64})
	qt.Assert(t, qt.IsNil(err))
	defer p.Close()
	_, ok := p.AllocRun(p.Free() + 1)
	qt.Check(t, qt.IsFalse(ok))
	_, ok = p.AllocRun(0)
	qt.Check(t, qt.IsFalse(ok))
	first, ok := p.AllocRun(p.Free())
	qt.Check(t, qt.IsTrue(ok))
	qt.Check(t, qt.Equals(first, p.FirstFrame()))
	qt.Check(t, qt.Equals(p.Free(), 0))
}
