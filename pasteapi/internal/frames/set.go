package frames

// set counts, by frame, the references of the pool that a ring holds, one
// for each place: its slots, the NIC, the kernel, the free list. A frame enters
// the set from the pool or from the application and leaves it the same way;
// what is in it at the end goes back to the pool, wherever it is. It is a
// count, not a bit, because one frame may be sent from several TX slots, and
// because an application that forwards by swapping the buffers of an RX and a
// TX slot shows the two halves of the swap one after the other. A ring has
// fewer than 1<<16 slots, so the count cannot overflow.
type set []uint16

func (s set) add(f uint32)    { s[f]++ }
func (s set) remove(f uint32) { s[f]-- }

func (s set) addAll(frames []uint32) {
	for _, f := range frames {
		s[f]++
	}
}

func (s set) removeAll(frames []uint32) {
	for _, f := range frames {
		s[f]--
	}
}

// all lists the frames in the set, each as often as it is held. refs is how
// often the pool says that: an application that puts one buffer into two slots
// does not get its reference counted twice.
func (s set) all(refs func(frame uint32) int) []uint32 {
	var frames []uint32
	for f, held := range s {
		n := int(held)
		if n > 1 {
			n = min(n, refs(uint32(f)))
		}
		for range n {
			frames = append(frames, uint32(f))
		}
	}
	return frames
}
