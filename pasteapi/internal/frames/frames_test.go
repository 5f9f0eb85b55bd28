package frames

import (
	"slices"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/pmem"
	"pgregory.net/rapid"
)

func newPool(t testing.TB) *pmem.Pool {
	t.Helper()
	pool, err := pmem.NewMemory("frames-test", pmem.Options{Size: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

// TestEveryFrameInOnePlace: whatever the order of calls, each frame is with the
// pool, in circulation, in a slot or the application's, and Close gives back all
// but the last.
func TestEveryFrameInOnePlace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pool, err := pmem.NewMemory("frames-test", pmem.Options{Size: 4 << 20})
		if err != nil {
			t.Fatal(err)
		}
		all := pool.Free()
		f := New(pool)
		slots := make([]uint32, 16)
		if err := f.Fill(slots); err != nil {
			t.Fatal(err)
		}
		var out, kept []uint32 // with the NIC or the kernel; the application's
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				if frame, ok := f.Take(); ok {
					out = append(out, frame)
				} else if pool.Free() > 0 {
					t.Fatalf("none, with %d free", pool.Free())
				}
			},
			"post": func(t *rapid.T) {
				out = append(out, f.Post(rapid.IntRange(1, 300).Draw(t, "want"))...)
			},
			"give": func(t *rapid.T) {
				n := min(len(out), rapid.IntRange(0, 2000).Draw(t, "n"))
				for _, frame := range out[:n] {
					f.Arrived(frame)
					f.Give(frame)
				}
				out = out[n:]
			},
			"shelve": func(t *rapid.T) { // a slot is filled
				if i := rapid.IntRange(0, len(slots)-1).Draw(t, "slot"); len(out) > 0 && !f.runs.is(slots[i]) {
					f.Shelve(slots[i])
					f.Arrived(out[0])
					slots[i] = out[0]
					out = out[1:]
				}
			},
			"run": func(t *rapid.T) { // a slot is filled with a run, or it is not needed after all
				head, ok := f.TakeRun()
				i := rapid.IntRange(0, len(slots)-1).Draw(t, "slot")
				switch {
				case !ok:
				case f.runs.is(slots[i]):
					f.GiveRun(head)
				default:
					f.Park(head, slots[i])
					slots[i] = head
				}
			},
			"trade": func(t *rapid.T) { // and given back
				i := rapid.IntRange(0, len(slots)-1).Draw(t, "slot")
				slots[i] = f.Trade(slots[i])
			},
			"replace": func(t *rapid.T) {
				i := rapid.IntRange(0, len(slots)-1).Draw(t, "slot")
				n := 1
				if f.runs.is(slots[i]) {
					n = rapid.IntRange(1, f.runs.n).Draw(t, "frames")
				}
				other, err := f.ReplaceRun(slots[i], n)
				if err != nil {
					return
				}
				for k := range uint32(n) {
					kept = append(kept, slots[i]+k)
				}
				slots[i] = other
			},
			"swap": func(t *rapid.T) { // the application puts one of its own into a slot
				if len(kept) > 0 {
					i := rapid.IntRange(0, len(slots)-1).Draw(t, "slot")
					taken := []uint32{slots[i]}
					if f.runs.is(slots[i]) {
						taken = slices.Clone(f.runs.frames(slots[i]))
					}
					f.Swap(slots[i], kept[0])
					slots[i] = kept[0]
					kept = append(kept[1:], taken...)
				}
			},
			"": func(t *rapid.T) {
				seen := map[uint32]bool{}
				var inSlots []uint32
				for _, frame := range slots {
					if f.runs.is(frame) {
						inSlots = append(append(inSlots, f.runs.frames(frame)...), f.runs.home[frame])
					} else {
						inSlots = append(inSlots, frame)
					}
				}
				for _, head := range f.runs.free {
					inSlots = append(inSlots, f.runs.frames(head)...)
				}
				for _, place := range [][]uint32{f.free, f.cold, f.reserve, inSlots, out, kept} {
					for _, frame := range place {
						if seen[frame] {
							t.Fatalf("frame %d is in two places", frame)
						}
						seen[frame] = true
						if pool.Refs(frame) != 1 {
							t.Fatalf("frame %d has %d references", frame, pool.Refs(frame))
						}
					}
				}
				err := f.Audit(func(v Visit) {
					for _, frame := range slots {
						v(RXSlot, frame)
					}
					for _, frame := range out {
						if f.posted[frame/64]&(1<<(frame%64)) == 0 {
							v(Ticket, frame)
						}
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				if len(seen)+pool.Free() != all {
					t.Fatalf("%d frames in places and %d free, of %d", len(seen), pool.Free(), all)
				}
			},
		})
		f.Close()
		if pool.Free()+len(kept) != all || pool.Misuses() != 0 {
			t.Fatalf("%d free and %d kept, of %d; %d misuses", pool.Free(), len(kept), all, pool.Misuses())
		}
	})
}

// TestFloor: the NIC does not get the last frames, and is told of it.
func TestFloor(t *testing.T) {
	pool := newPool(t)
	defer pool.Close()
	f := New(pool)
	posted := 0
	for n := -1; n != 0; {
		n = len(f.Post(1000))
		posted += n
	}
	qt.Check(t, qt.Equals(f.Empty, 1))
	qt.Check(t, qt.IsTrue(posted > 500), qt.Commentf("%d frames", posted))
	qt.Check(t, qt.IsTrue(f.Ensure(floor)))
	qt.Check(t, qt.IsFalse(f.Ensure(floor+1)))
	qt.Check(t, qt.Equals(f.Empty, 2))
	_, err := f.Replace(0)
	qt.Check(t, qt.ErrorIs(err, ErrNone))
	f.Close()
}

// TestFillAllOrNone: a ring for which there are not enough frames gets none.
func TestFillAllOrNone(t *testing.T) {
	pool := newPool(t)
	defer pool.Close()
	free := pool.Free()
	f := New(pool)
	qt.Check(t, qt.ErrorIs(f.Fill(make([]uint32, free+1)), ErrNone))
	qt.Check(t, qt.Equals(pool.Free(), free))
	f.Close()
}
