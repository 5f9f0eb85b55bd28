package pmem

import "sort"

// logIndex is what Truncate has to know of the entries in the log, in DRAM:
// reading them again would cost a checksum and a line that is in no cache for
// each. It has an element for each slot of the ring, of which a page is touched
// only once its slots are used.
type logIndex []indexed

type indexed struct {
	frame  uint32 // the first one of the entry; 0: none
	frames uint32 // how many
	seq    uint32 // the lower half of the record's
}

// set notes an entry that is staged, or that recovery found.
func (x logIndex) set(e *entry, g *geometry) {
	in := indexed{seq: uint32(e.seq)}
	if e.isFragment() {
		in.frame, in.frames = e.frame, e.frames(g)
	}
	x[e.pos%uint64(len(x))] = in
}

// find returns the position of the first entry in [from, end) whose record is
// seq or a later one, or end. seq is a live record or the next.
func (x logIndex) find(seq, from, end uint64) uint64 {
	return from + uint64(sort.Search(int(end-from), func(i int) bool {
		return int32(x[(from+uint64(i))%uint64(len(x))].seq-uint32(seq)) >= 0
	}))
}

// unref gives up the references to frames of the entries in [from, end). It begins
// with the last frame: what is freed last is allocated first, so neighbours are
// allocated in the order in which they lie.
func (x logIndex) unref(t *frameTable, from, end uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slot := end % uint64(len(x))
	for range end - from {
		if slot == 0 {
			slot = uint64(len(x))
		}
		slot--
		in := x[slot]
		if in.frame == 0 {
			continue
		}
		for f := in.frame + in.frames; f > in.frame; f-- {
			if t.held(f - 1) {
				t.unref(f - 1)
			}
		}
	}
}
