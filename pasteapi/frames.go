package pasteapi

// frameSet counts, by frame, the places where a ring holds it: its slots, the
// NIC, the kernel, the free list. A frame enters the set from the pool or from
// the application and leaves it the same way; what is in it at the end goes
// back to the pool, wherever it is. It is a count, not a bit, because an
// application that forwards by swapping the buffers of an RX and a TX slot
// shows the two halves of the swap one after the other.
type frameSet []uint8

func (s frameSet) add(f uint32)    { s[f]++ }
func (s frameSet) remove(f uint32) { s[f]-- }

func (s frameSet) addAll(frames []uint32) {
	for _, f := range frames {
		s[f]++
	}
}

func (s frameSet) removeAll(frames []uint32) {
	for _, f := range frames {
		s[f]--
	}
}

// all lists the frames in the set.
func (s frameSet) all() []uint32 {
	var frames []uint32
	for f, n := range s {
		if n > 0 && n < 128 {
			frames = append(frames, uint32(f))
		}
	}
	return frames
}
