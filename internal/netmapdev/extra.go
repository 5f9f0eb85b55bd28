package netmapdev

import "unsafe"

// takeExtra takes up to n buffers out of the pool for the program, and chains them
// by the number that each begins with; 0 ends the chain.
func (m *memory) takeExtra(n uint32) (head, got uint32) {
	n = min(n, m.pool.Frames())
	all := make([]uint32, n)
	got = uint32(m.pool.Alloc(all))
	for i := range all[:got] {
		*m.link(all[i]) = head
		head = all[i]
	}
	return head, got
}

// link is the number at the beginning of a buffer.
func (m *memory) link(buf uint32) *uint32 {
	at := uint64(buf) * uint64(m.pool.FrameSize())
	return (*uint32)(unsafe.Pointer(&m.pool.Mem()[at]))
}

// giveExtra gives back the chain that begins at head, at most n buffers. It is the
// program's: where it leads to something else than a buffer of which somebody has
// one reference, it ends. held tells of buffers that a ring has.
func (m *memory) giveExtra(head, n uint32, held func(buf uint32) bool) (back uint32) {
	for buf := head; n > 0; n-- {
		if buf < m.pool.FirstFrame() || buf >= m.pool.Frames() || m.pool.Refs(buf) != 1 || held(buf) {
			break
		}
		next := *m.link(buf)
		m.pool.Unref(buf)
		back++
		buf = next
	}
	return back
}
