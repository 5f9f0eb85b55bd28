package pmem

import (
	"fmt"
	"slices"
	"sync"
)

// frameTable knows in DRAM which data frames are free, and how many hold on to
// each of the others. Its slices are as large as the pool has frames, but a
// page of them is touched only once a frame is used: opening a large pool
// costs nothing per free frame.
type frameTable struct {
	mu      sync.Mutex
	first   uint32
	end     uint32
	next    uint32   // frames from here on were never given out since open
	used    uint32   // frames with a reference
	refs    []uint32 // reference count of frame first+i
	stack   []uint32 // frames below next that came back; the last in is the warmest
	stacked []uint64 // bit i is set when frame first+i is there; allocRun may have given it out
	sole    []uint64 // during recovery: bit i is set when frame first+i must have one reference
	misuses uint64
}

func (t *frameTable) init(first, end uint32) {
	t.first, t.end, t.next = first, end, first
	t.refs = make([]uint32, end-first)
	t.stack = make([]uint32, 0, end-first)
	t.stacked = make([]uint64, (end-first+63)/64)
	t.sole = nil
}

func (t *frameTable) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end, t.next, t.refs, t.stack = t.first, t.first, nil, nil
	t.stacked = nil
}

func (t *frameTable) alloc(dst []uint32) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for n < len(dst) {
		var f uint32
		if k := len(t.stack); k > 0 {
			f = t.stack[k-1]
			t.stack = t.stack[:k-1]
			i := f - t.first
			t.stacked[i/64] &^= 1 << (i % 64)
			if t.refs[i] != 0 {
				continue
			}
		} else {
			// Recovery gave references to frames above next; step over them.
			for t.next < t.end && t.refs[t.next-t.first] != 0 {
				t.next++
			}
			if t.next == t.end {
				break
			}
			f = t.next
			t.next++
		}
		t.refs[f-t.first] = 1
		dst[n] = f
		n++
	}
	t.used += uint32(n)
	return n
}

// ref adds a reference to a frame in use; it reports whether it could.
func (t *frameTable) ref(f uint32) bool {
	if f < t.first || f >= t.end || t.refs[f-t.first] == 0 || t.refs[f-t.first] == ^uint32(0) {
		t.misuses++
		return false
	}
	t.refs[f-t.first]++
	return true
}

// adopt adds a reference to any data frame, as recovery finds it. Nobody else
// uses the table yet. It reports whether f is a data frame, and whether the
// reference may be: one that is sole suffers no other.
func (t *frameTable) adopt(f uint32, sole bool) (known, ok bool) {
	if f < t.first || f >= t.end || t.refs[f-t.first] == ^uint32(0) {
		return false, false
	}
	i := f - t.first
	if t.refs[i] == 0 {
		t.used++
	} else if sole || t.sole != nil && t.sole[i/64]&(1<<(i%64)) != 0 {
		return true, false
	}
	if sole {
		if t.sole == nil {
			t.sole = make([]uint64, (t.end-t.first+63)/64)
		}
		t.sole[i/64] |= 1 << (i % 64)
	}
	t.refs[i]++
	return true, true
}

// unref gives up a reference to a frame in use; it reports whether it could.
// Frame 0 is never a data frame: it stands for none, and is ignored.
func (t *frameTable) unref(f uint32) bool {
	if f == 0 || t.refs == nil {
		return true
	}
	if f < t.first || f >= t.end || t.refs[f-t.first] == 0 {
		t.misuses++
		return false
	}
	if t.refs[f-t.first]--; t.refs[f-t.first] > 0 {
		return true
	}
	t.used--
	// A frame above next is found again when next gets there.
	if f < t.next {
		t.push(f)
	}
	return true
}

// push puts a free frame on the stack.
func (t *frameTable) push(f uint32) {
	if i := f - t.first; t.stacked[i/64]&(1<<(i%64)) == 0 {
		t.stacked[i/64] |= 1 << (i % 64)
		t.stack = append(t.stack, f)
	}
}

// held reports whether f is a data frame in use.
func (t *frameTable) held(f uint32) bool {
	return f >= t.first && f < t.end && t.refs[f-t.first] != 0
}

// Alloc fills dst with free data frames and returns how many it found; each
// has a reference count of 1, owned by the caller. Their content is whatever
// was there. Callers on a fast path ask for a batch, as each call locks.
func (p *Pool) Alloc(dst []uint32) int {
	if p.readOnly {
		return 0
	}
	return p.frames.alloc(dst)
}

// Ref adds a reference to frame i, which must be in use: it panics otherwise, as
// whoever does that may be reading what somebody else has been given.
func (p *Pool) Ref(i uint32) {
	p.frames.mu.Lock()
	ok := p.frames.ref(i)
	p.frames.mu.Unlock()
	if !ok {
		p.misused("Ref", i)
	}
}

// RefAll adds a reference to the frame of each fragment, under one lock, or to
// none: ErrFragment if one does not lie inside a data frame in use.
func (p *Pool) RefAll(frags []Fragment) error {
	_, err := p.refAll(frags)
	return err
}

// refAll returns the length of the fragments in bytes.
func (p *Pool) refAll(frags []Fragment) (bytes int, err error) {
	t := &p.frames
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, f := range frags {
		if uint32(f.Off)+uint32(f.Len) > p.g.frameSize || !t.held(f.Frame) || !t.ref(f.Frame) {
			for _, g := range frags[:i] {
				t.unref(g.Frame)
			}
			return 0, fmt.Errorf("%w %d: bytes %d to %d of frame %d, which must be a data frame in use of %d bytes",
				ErrFragment, i, f.Off, uint32(f.Off)+uint32(f.Len), f.Frame, p.g.frameSize)
		}
		bytes += int(f.Len)
	}
	return bytes, nil
}

// Unref gives up a reference to frame i; with the last one the frame is free.
// Frame 0 stands for none and is ignored. It panics if the frame is not in use:
// a reference that is given up twice frees the frame under another owner.
func (p *Pool) Unref(i uint32) {
	p.frames.mu.Lock()
	ok := p.frames.unref(i)
	p.frames.mu.Unlock()
	if !ok {
		p.misused("Unref", i)
	}
}

// UnrefAll is Unref of each of the frames, under one lock. When it panics, it
// has given up all those that were in use.
func (p *Pool) UnrefAll(frames []uint32) {
	if i, ok := p.unrefAll(frames); !ok {
		p.misused("Unref", i)
	}
}

// GiveBack is UnrefAll for references that were read from memory which may be
// damaged, as those of a structure in the pool: one that is not in use is left
// out, and an error that wraps ErrDamaged.
func (p *Pool) GiveBack(frames []uint32) error {
	if i, ok := p.unrefAll(frames); !ok {
		return fmt.Errorf("%w: a reference to frame %d, which is not in use", ErrDamaged, i)
	}
	return nil
}

// unrefAll returns the first frame that was not in use. It begins with the last one,
// see logIndex.unref.
func (p *Pool) unrefAll(frames []uint32) (bad uint32, ok bool) {
	p.frames.mu.Lock()
	defer p.frames.mu.Unlock()
	ok = true
	for _, f := range slices.Backward(frames) {
		if !p.frames.unref(f) {
			bad, ok = f, false
		}
	}
	return bad, ok
}

func (p *Pool) misused(call string, i uint32) {
	why := "is free: its last reference was given up before"
	if i < p.g.first || i >= p.g.frames {
		why = fmt.Sprintf("is no data frame: those are %d to %d", p.g.first, p.g.frames-1)
	}
	panic(fmt.Sprintf("pmem: %s of frame %d, which %s", call, i, why))
}

// Refs returns the reference count of frame i: 0 for a free frame and for an
// index that is no data frame.
func (p *Pool) Refs(i uint32) int {
	p.frames.mu.Lock()
	defer p.frames.mu.Unlock()
	if !p.frames.held(i) {
		return 0
	}
	return int(p.frames.refs[i-p.frames.first])
}

// Free returns the number of free data frames.
func (p *Pool) Free() int {
	p.frames.mu.Lock()
	defer p.frames.mu.Unlock()
	return int(p.frames.end - p.frames.first - p.frames.used)
}

// Misuses returns how many calls named a frame that was not in use, those that
// panicked included.
func (p *Pool) Misuses() uint64 {
	p.frames.mu.Lock()
	defer p.frames.mu.Unlock()
	return p.frames.misuses
}
