package btree

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/pastenet/paste/pmem"
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

const (
	nodeMagic = 0x4e545450 // "PTTN"
	nodeHead  = 32         // bytes before the slots
	leafHead  = 2          // bytes before the key of a leaf's cell
	innerHead = 5          // bytes before the key of an inner node's cell
	maxLevel  = 32
)

// node is one frame that holds a node; see the package documentation for the
// layout. A node of the working generation is changed in place, any other is
// never changed.
//
// A checksum says that a node is what somebody wrote, not that it makes sense.
// Before a node is changed or copied it is therefore checked as a whole (sound).
// Lookups use key, cell, value and child alone, which stay inside of the frame
// whatever it holds: damage is reported and never followed.
type node []byte

// damage is what a node is found with; it is panicked with inside the package
// and becomes an error at its surface.
type damage struct {
	frame uint32
	why   string
}

func (d *damage) Error() string { return fmt.Sprintf("node in frame %d: %s", d.frame, d.why) }
func (d *damage) Unwrap() error { return pmem.ErrDamaged }

func (n node) bad(format string, args ...any) {
	panic(&damage{n.frame(), fmt.Sprintf(format, args...)})
}

func (n node) gen() uint64    { return le.Uint64(n[8:]) }
func (n node) frame() uint32  { return le.Uint32(n[16:]) }
func (n node) level() int     { return int(n[20]) }
func (n node) count() int     { return int(le.Uint16(n[22:])) }
func (n node) heap() int      { return int(le.Uint16(n[24:])) }
func (n node) dead() int      { return int(le.Uint16(n[26:])) }
func (n node) setCount(v int) { le.PutUint16(n[22:], uint16(v)) }
func (n node) setHeap(v int)  { le.PutUint16(n[24:], uint16(v)) }
func (n node) setDead(v int)  { le.PutUint16(n[26:], uint16(v)) }

// init makes n an empty node.
func (n node) init(frame uint32, gen uint64, level int) {
	clear(n[:nodeHead])
	le.PutUint32(n, nodeMagic)
	le.PutUint64(n[8:], gen)
	le.PutUint32(n[16:], frame)
	n[20] = byte(level)
	n.setHeap(len(n))
}

// seal computes the checksum of a node that will not change any more.
func (n node) seal(seed uint32) {
	h, end := n.heap(), nodeHead+2*n.count()
	if end > h || h > len(n) {
		n.bad("%d cells below byte %d", n.count(), h)
	}
	clear(n[end:h]) // nothing of an earlier use of the frame becomes part of the format
	le.PutUint32(n[4:], crc32.Update(seed, castagnoli, n[8:]))
}

func (n node) intact(seed uint32) bool {
	return le.Uint32(n[4:]) == crc32.Update(seed, castagnoli, n[8:])
}

func (n node) headLen() int {
	if n[20] == 0 {
		return leafHead
	}
	return innerHead
}

// cellLen is the length of the cell that begins at byte off.
func (n node) cellLen(off int) int {
	if n[20] != 0 {
		return innerHead + int(n[off])
	}
	return leafHead + int(n[off]) + int(n[off+1])
}

// cell returns the bytes of cell i.
func (n node) cell(i int) []byte {
	at := nodeHead + 2*i
	if i >= n.count() || at+2 > len(n) {
		n.bad("cell %d of %d", i, n.count())
	}
	off := int(le.Uint16(n[at:]))
	if off < nodeHead || off+n.headLen() > len(n) {
		n.bad("cell %d at byte %d", i, off)
	}
	size := n.cellLen(off)
	if off+size > len(n) {
		n.bad("cell %d reaches beyond the frame", i)
	}
	return n[off : off+size : off+size]
}

// key returns the key of cell i, which is below count, in place. Searches do
// little else, so it checks no more than it needs.
func (n node) key(i int) []byte {
	off, h := int(le.Uint16(n[nodeHead+2*i:])), leafHead
	if n[20] != 0 {
		h = innerHead
	}
	if off >= nodeHead && off < len(n) {
		if end := off + h + int(n[off]); end <= len(n) {
			return n[off+h : end]
		}
	}
	n.bad("cell %d at byte %d", i, off)
	return nil
}

// value returns the encoded value of a leaf's cell, in place.
func (n node) value(i int) []byte {
	c := n.cell(i)
	return c[leafHead+int(c[0]):]
}

// child returns the frame that an inner node's cell refers to.
func (n node) child(i int) uint32 { return le.Uint32(n.cell(i)[1:]) }

// bounds returns the range of the keys below an inner node's cell, of which the
// node's own range is lo to hi.
func (n node) bounds(i int, lo, hi []byte) (from, to []byte) {
	if i > 0 {
		lo = n.key(i)
	}
	if i+1 < n.count() {
		hi = n.key(i + 1)
	}
	return lo, hi
}

func (n node) setChild(i int, frame uint32) { le.PutUint32(n.cell(i)[1:], frame) }

// find returns where key is in a leaf, or where it belongs.
func (n node) find(key []byte) (i int, found bool) {
	lo, hi := 0, n.count()
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch c := bytes.Compare(n.key(mid), key); {
		case c < 0:
			lo = mid + 1
		case c == 0:
			return mid, true
		default:
			hi = mid
		}
	}
	return lo, false
}

// route returns the cell of an inner node that leads to key: the last one
// whose key is not larger. The first cell's key counts as smaller than any.
func (n node) route(key []byte) int {
	lo, hi := 1, n.count()
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if bytes.Compare(n.key(mid), key) <= 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo - 1
}

// used is how many bytes cells and their slots take.
func (n node) used() int { return len(n) - n.heap() - n.dead() + 2*n.count() }

// capacity is what used can grow to.
func (n node) capacity() int { return len(n) - nodeHead }

// open makes room for a cell of size bytes at index i and returns it, or nil
// when the node is too full. scratch is as large as a node.
func (n node) open(i, size int, scratch []byte) []byte {
	if n.used()+size+2 > n.capacity() {
		return nil
	}
	if n.heap()-(nodeHead+2*n.count()) < size+2 {
		n.compact(scratch)
	}
	at := n.heap() - size
	n.setHeap(at)
	slots := n[nodeHead : nodeHead+2*n.count()+2]
	copy(slots[2*i+2:], slots[2*i:])
	le.PutUint16(slots[2*i:], uint16(at))
	n.setCount(n.count() + 1)
	return n[at : at+size]
}

// remove takes cell i out.
func (n node) remove(i int) {
	n.setDead(n.dead() + len(n.cell(i)))
	slots := n[nodeHead : nodeHead+2*n.count()]
	copy(slots[2*i:], slots[2*i+2:])
	n.setCount(n.count() - 1)
}

// compact moves all cells to the end of the frame.
func (n node) compact(scratch []byte) {
	old := node(scratch[:len(n)])
	copy(old, n)
	at := len(n)
	for i := range old.count() {
		c := old.cell(i)
		at -= len(c)
		if at < nodeHead+2*old.count() {
			n.bad("cells overlap")
		}
		copy(n[at:], c)
		le.PutUint16(n[nodeHead+2*i:], uint16(at))
	}
	n.setHeap(at)
	n.setDead(0)
}

// truncate drops the cells from i on.
func (n node) truncate(i int, scratch []byte) {
	n.setCount(i)
	n.compact(scratch)
}

// addLeaf puts a leaf cell at index i; false when there is no room.
func (n node) addLeaf(i int, key, value, scratch []byte) bool {
	c := n.open(i, leafHead+len(key)+len(value), scratch)
	if c == nil {
		return false
	}
	c[0], c[1] = byte(len(key)), byte(len(value))
	copy(c[leafHead:], key)
	copy(c[leafHead+len(key):], value)
	return true
}

// addInner puts an inner cell at index i; false when there is no room.
func (n node) addInner(i int, key []byte, child uint32, scratch []byte) bool {
	c := n.open(i, innerHead+len(key), scratch)
	if c == nil {
		return false
	}
	c[0] = byte(len(key))
	le.PutUint32(c[1:], child)
	copy(c[innerHead:], key)
	return true
}

// take appends cell i of from; the caller has made sure of the room.
func (n node) take(from node, i int, scratch []byte) {
	c := from.cell(i)
	d := n.open(n.count(), len(c), scratch)
	if d == nil {
		n.bad("no room for a cell of frame %d", from.frame())
	}
	copy(d, c)
}

// middle returns the first cell of the right half, by bytes.
func (n node) middle() int {
	half, sum := n.used()/2, 0
	for i := range n.count() - 1 {
		if sum += len(n.cell(i)) + 2; sum >= half {
			return i + 1
		}
	}
	return n.count() - 1
}

// separator returns the shortest key larger than left and not larger than right.
func separator(left, right []byte) []byte {
	i := 0
	for i < len(left) && left[i] == right[i] {
		i++
	}
	return right[:i+1]
}
