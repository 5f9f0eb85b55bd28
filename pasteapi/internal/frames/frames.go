// Package frames is the ring's ownership of the pool's frames: which of them
// circulate between the NIC, the kernel and the rings, and which the application
// takes away.
package frames

import (
	"errors"
	"math"
	"math/bits"

	"github.com/pastenet/paste/pmem"
)

// ErrNone says that the pool has no free frame.
var ErrNone = errors.New("no free buffer in the pool")

const (
	// floor is how many frames are never posted to the NIC: when the pool is
	// empty, connections can still be registered and bytes copied.
	floor = 64
	// reserveBatch is how many frames Replace takes from the pool at once.
	reserveBatch = 32
	// spareMost and spareLeast are when frames that circulate go back to the
	// pool, and how many then stay.
	spareMost  = 1024
	spareLeast = 512
	// lowPart is the part of the pool's frames below which it is nearly empty: one
	// in so many.
	lowPart = 16
)

// Frames are the frames that one ring holds. It belongs to the ring's goroutine.
type Frames struct {
	pool    *pmem.Pool
	mem     []byte // the pool's
	shift   uint
	owned   set
	posted  []uint64 // bit by frame: with a NIC
	free    []uint32 // those that circulate and are nowhere at the moment, the warmest last
	cold    []uint32 // the same, but it is some time since anybody touched them
	reserve []uint32 // for Replace, straight from the pool
	runs    runs

	// Empty counts how often the pool had no frame.
	Empty uint64
}

// New returns an empty holding of a pool.
func New(pool *pmem.Pool) *Frames {
	owned := make(set, pool.Frames())
	return &Frames{
		pool: pool, mem: pool.Mem(), shift: pool.FrameShift(),
		owned: owned, posted: make([]uint64, (pool.Frames()+63)/64), reserve: make([]uint32, 0, reserveBatch),
		runs: newRuns(pool, owned),
	}
}

// Size is the size of a frame, bytes.
func (f *Frames) Size() int { return 1 << f.shift }

// Bytes is the memory of a frame.
func (f *Frames) Bytes(frame uint32) []byte {
	at := int(frame) << f.shift
	return f.mem[at : at+1<<f.shift : at+1<<f.shift]
}

// TakeRun takes a run of frames to receive into: RunSize bytes of one stretch, named
// by the first of them. It fails where there is none at the moment.
func (f *Frames) TakeRun() (head uint32, ok bool) { return f.runs.take() }

// RunSize is how many bytes of a run a slot can name; 0 where there are no runs.
func (f *Frames) RunSize() int {
	if f.runs.most == 0 {
		return 0
	}
	return math.MaxUint16
}

// IsRun says whether a frame is the first of a run that the ring has.
func (f *Frames) IsRun(frame uint32) bool { return f.runs.is(frame) }

// RunBytes is the memory of a run.
func (f *Frames) RunBytes(head uint32) []byte {
	at := int(head) << f.shift
	return f.mem[at : at+math.MaxUint16 : at+math.MaxUint16]
}

// GiveRun takes a run back that is in no slot.
func (f *Frames) GiveRun(head uint32) { f.runs.give(head) }

// Park keeps the buffer of a slot that gets a run, until Trade.
func (f *Frames) Park(head, home uint32) { f.runs.home[head] = home }

// At splits an address in the pool into a frame and an offset in it.
func (f *Frames) At(addr uint64) (frame uint32, off uint16) {
	return uint32(addr >> f.shift), uint16(addr & (1<<f.shift - 1))
}

// Take takes a frame into circulation. It fails when the pool is empty.
func (f *Frames) Take() (frame uint32, ok bool) {
	if len(f.free) == 0 && !f.thaw(1) && f.fetch(64) == 0 {
		return 0, false
	}
	frame = f.free[len(f.free)-1]
	f.free = f.free[:len(f.free)-1]
	return frame, true
}

// thaw has at least one and up to n cold frames used next.
func (f *Frames) thaw(n int) bool {
	n = min(n, len(f.cold))
	rest := len(f.cold) - n
	f.free = append(f.free, f.cold[rest:]...)
	f.cold = f.cold[:rest]
	return n > 0
}

// fetch takes up to n frames, at most 256, from the pool.
func (f *Frames) fetch(n int) int {
	var batch [256]uint32
	n = f.pool.Alloc(batch[:min(n, len(batch))])
	f.owned.addAll(batch[:n])
	f.free = append(f.free, batch[:n]...)
	return n
}

// Give takes a frame back that does not hold anything any more. It is the next one
// to be taken: what was used a moment ago is in the CPU's cache.
func (f *Frames) Give(frame uint32) { f.free = f.trim(append(f.free, frame)) }

// Shelve takes back the buffer of a slot that gets another one. It was put there
// when the slot was filled the last time, a whole ring ago.
func (f *Frames) Shelve(frame uint32) { f.cold = f.trim(append(f.cold, frame)) }

// Trade takes back the buffer of a slot that the application has done with, and
// gives the slot one from the shelf: without it a ring of 1024 slots would go
// through 2 MiB of memory, however few of its slots are in use at a time. For a run
// it gets the one back that it had before.
func (f *Frames) Trade(frame uint32) (other uint32) {
	if f.runs.is(frame) {
		other = f.runs.home[frame]
		delete(f.runs.home, frame)
		f.runs.give(frame)
		return other
	}
	if len(f.cold) == 0 {
		return frame
	}
	other = f.cold[len(f.cold)-1]
	f.cold = f.cold[:len(f.cold)-1]
	f.Give(frame)
	return other
}

// trim gives what is too much of a list back to the pool.
func (f *Frames) trim(list []uint32) []uint32 {
	if len(list) >= spareMost {
		f.owned.removeAll(list[spareLeast:])
		f.pool.UnrefAll(list[spareLeast:])
		list = list[:spareLeast]
	}
	return list
}

// Ensure says whether the next n calls of Take will succeed.
func (f *Frames) Ensure(n int) bool {
	if len(f.free) < n {
		f.thaw(n - len(f.free))
	}
	if len(f.free) < n {
		f.fetch(max(n-len(f.free), 64))
	}
	if len(f.free) < n {
		f.Empty++
		return false
	}
	return true
}

// Post takes up to want frames for a NIC to receive into. They come back by
// Arrived, or by Recall. What is returned is valid until the next call.
func (f *Frames) Post(want int) []uint32 {
	need := want + floor
	if len(f.free) < need {
		f.thaw(need - len(f.free))
	}
	if len(f.free) < need {
		f.fetch(need - len(f.free))
	}
	n := min(want, len(f.free)-floor)
	if n <= 0 {
		f.Empty++
		return nil
	}
	rest := len(f.free) - n
	posted := f.free[rest:]
	f.free = f.free[:rest]
	for _, frame := range posted {
		f.posted[frame/64] |= 1 << (frame % 64)
	}
	return posted
}

// Arrived notes that the NIC has received into a frame.
func (f *Frames) Arrived(frame uint32) { f.posted[frame/64] &^= 1 << (frame % 64) }

// Recall takes back the frames that are posted. The NIC must not have them any
// more.
func (f *Frames) Recall() {
	for i := range f.posted {
		for ; f.posted[i] != 0; f.posted[i] &= f.posted[i] - 1 {
			f.Give(uint32(i*64 + bits.TrailingZeros64(f.posted[i])))
		}
	}
}

// Low says whether the pool is nearly empty.
func (f *Frames) Low() bool { return f.pool.Free() < int(f.pool.Frames())/lowPart }

// Fill gives a buffer to each slot of a new ring, or to none of them.
func (f *Frames) Fill(bufs []uint32) error {
	if f.pool.Alloc(bufs) < len(bufs) {
		f.pool.UnrefAll(bufs) // index 0 is no frame, and ignored
		return ErrNone
	}
	f.owned.addAll(bufs)
	return nil
}

// Replace lets the caller have a frame, with the ring's reference, and returns
// another one for its place. Frames for this come from the pool, never from
// those that circulate, so a ring goes on working when all are kept.
func (f *Frames) Replace(frame uint32) (other uint32, err error) { return f.ReplaceRun(frame, 1) }

// ReplaceRun is Replace of what may be a run: of that the caller gets the first n
// frames, and the pool the others.
func (f *Frames) ReplaceRun(frame uint32, n int) (other uint32, err error) {
	if len(f.reserve) == 0 {
		f.reserve = f.reserve[:reserveBatch]
		f.reserve = f.reserve[:f.pool.Alloc(f.reserve)]
		if len(f.reserve) == 0 {
			return 0, ErrNone
		}
	}
	other = f.reserve[len(f.reserve)-1]
	f.reserve = f.reserve[:len(f.reserve)-1]
	run := f.runs.is(frame)
	f.Swap(frame, other)
	if run {
		f.pool.UnrefAll(f.runs.frames(frame)[n:])
	}
	return other, nil
}

// Swap notes that the application has put frame in into the place of frame out. Of a
// run it has all frames then.
func (f *Frames) Swap(out, in uint32) {
	if f.runs.is(out) {
		f.Give(f.runs.end(out))
	} else {
		f.owned.remove(out)
	}
	f.owned.add(in)
}

// Owns says whether the ring has a reference of a frame.
func (f *Frames) Owns(frame uint32) bool { return int(frame) < len(f.owned) && f.owned[frame] > 0 }

// Unref gives up a reference that a Replace has let out of the circulation. Its
// frame may be part of something that is stored, so it never goes to the NIC.
func (f *Frames) Unref(frame uint32) { f.pool.Unref(frame) }

// Refs is how many references the pool knows of a frame.
func (f *Frames) Refs(frame uint32) int { return f.pool.Refs(frame) }

// Valid says which frames there are: from first up to end.
func (f *Frames) Valid() (first, end uint32) { return f.pool.FirstFrame(), f.pool.Frames() }

// Flush begins to make n bytes at off in a frame durable; Fence ends it.
func (f *Frames) Flush(frame uint32, off, n int) {
	f.pool.Flush(f.pool.Offset(frame, off), uint64(n))
}

// Fence makes durable what was flushed.
func (f *Frames) Fence() error { return f.pool.Fence() }

// Close gives everything back to the pool, wherever it is. Nobody may use the
// frames any more.
func (f *Frames) Close() {
	f.pool.UnrefAll(f.owned.all(f.pool.Refs))
	f.pool.UnrefAll(f.reserve)
	f.owned, f.free, f.cold, f.reserve = nil, nil, nil, nil
}
