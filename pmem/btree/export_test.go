package btree

import (
	"hash/crc32"

	"github.com/pastenet/paste/pmem"
)

// Reseal gives a damaged node, or a frame with fragments of a value, a right
// checksum.
func Reseal(p *pmem.Pool, frame uint32) {
	b := p.Frame(frame)
	if le.Uint32(b) == overflowMagic {
		le.PutUint32(b[4:], crc32.Update(seedOf(p)^frame, castagnoli, b[8:]))
		return
	}
	n := node(b)
	if nodeHead+2*n.count() <= n.heap() && n.heap() <= len(n) {
		n.seal(seedOf(p))
	}
}
