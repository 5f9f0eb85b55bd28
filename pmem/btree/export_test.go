package btree

import "github.com/pastenet/paste/pmem"

// Reseal gives a damaged node a right checksum.
func Reseal(p *pmem.Pool, b []byte) {
	n := node(b)
	if nodeHead+2*n.count() <= n.heap() && n.heap() <= len(n) {
		n.seal(seedOf(p))
	}
}
