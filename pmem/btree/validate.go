package btree

import (
	"bytes"
	"fmt"
	"math/bits"
)

// maxFrame is the largest frame size of the pool format in bytes.
const maxFrame = 4096

// check verifies everything about a sealed node that can be known from itself
// and the range of keys that its parent leads to it: from lo on, below hi (nil:
// no limit). It panics with *damage.
func (n node) check(seed, frame uint32, level int, lo, hi []byte) {
	switch {
	case le.Uint32(n) != nodeMagic:
		panic(&damage{frame, "is not a tree node"})
	case !n.intact(seed):
		panic(&damage{frame, "checksum mismatch"})
	case n.frame() != frame:
		panic(&damage{frame, fmt.Sprintf("is the node of frame %d", n.frame())})
	case n.level() != level:
		n.bad("level %d where %d belongs", n.level(), level)
	case n.count() == 0:
		n.bad("is empty")
	}
	n.checkCells(lo, hi)
}

// checkCells verifies that all cells lie in the heap, that no two overlap, that
// they and the removed ones fill it, and the order and the range of the keys.
// It is what a change of a node costs after a commit, so it is one pass.
func (n node) checkCells(lo, hi []byte) {
	count, heap := n.count(), n.heap()
	if nodeHead+2*count > heap || heap > len(n) || len(n) > maxFrame {
		n.bad("%d cells below byte %d", count, heap)
	}
	head, first := n.headLen(), 0
	if n.level() > 0 {
		first = 1 // an inner node's first key means nothing
	}
	var begins [maxFrame / 64]uint64 // one bit for each byte that begins a cell
	sum, prev := n.dead(), lo
	for i, slots := 0, n[nodeHead:nodeHead+2*count]; i < count; i++ {
		off := int(le.Uint16(slots[2*i:]))
		if off < heap || off+head > len(n) {
			n.bad("cell %d at byte %d", i, off)
		}
		size := n.cellLen(off)
		if off+size > len(n) {
			n.bad("cell %d reaches beyond the frame", i)
		}
		sum += size
		if begins[off/64]&(1<<(off%64)) != 0 {
			n.bad("cells overlap")
		}
		begins[off/64] |= 1 << (off % 64)
		if i < first {
			continue
		}
		key := n[off+head : off+head+int(n[off])]
		switch c := bytes.Compare(prev, key); {
		case i > first && c >= 0:
			n.bad("keys %d and %d are out of order", i-1, i)
		case c > 0:
			n.bad("key %d is outside of the node's range", i)
		}
		prev = key
	}
	if first < count && hi != nil && bytes.Compare(prev, hi) >= 0 {
		n.bad("key %d is outside of the node's range", count-1)
	}
	if heap+sum != len(n) {
		n.bad("cells of %d bytes in a heap of %d", sum, len(n)-heap)
	}
	n.checkGaps(begins[:len(n)/64])
}

// checkGaps verifies that every cell ends before the next one begins.
func (n node) checkGaps(begins []uint64) {
	end := 0
	for w, word := range begins {
		for ; word != 0; word &= word - 1 {
			off := 64*w + bits.TrailingZeros64(word)
			if off < end {
				n.bad("cells overlap")
			}
			end = off + n.cellLen(off)
		}
	}
}
