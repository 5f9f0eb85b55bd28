package pmemsim

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
)

const sector = 512 // bytes that a disk writes in one piece

// Disk is a file behind a page cache: what was written is certain to survive
// only after Sync; until then any subset of the written sectors may, old or new.
type Disk struct {
	// WriteErr and SyncErr, if not nil, are asked before each call.
	WriteErr, SyncErr func() error
	Writes, Syncs     int

	cached  []byte
	durable []byte
	dirty   map[int]bool // sectors
	rng     *rand.Rand
	left    int
}

// NewDisk makes a Disk that holds content, durably.
func NewDisk(content []byte, rng *rand.Rand) *Disk {
	return &Disk{cached: bytes.Clone(content), durable: bytes.Clone(content), dirty: map[int]bool{}, rng: rng}
}

// CrashAfter makes the n-th call from now panic, before it has an effect; Run
// catches that. 0 means never.
func (d *Disk) CrashAfter(n int) { d.left = n }

func (d *Disk) step() {
	if d.left > 0 {
		if d.left--; d.left == 0 {
			panic(crash{})
		}
	}
	if d.rng.IntN(4) == 0 { // write-back of its own accord
		d.settle(0.3)
	}
}

// settle lets a share of the dirty sectors reach the medium.
func (d *Disk) settle(share float64) {
	for _, s := range slices.Sorted(maps.Keys(d.dirty)) {
		if d.rng.Float64() < share {
			copy(d.durable[s*sector:(s+1)*sector], d.cached[s*sector:])
		}
	}
}

// WriteAt implements io.WriterAt.
func (d *Disk) WriteAt(b []byte, off int64) (int, error) {
	d.step()
	d.Writes++
	if d.WriteErr != nil {
		if err := d.WriteErr(); err != nil {
			return 0, err
		}
	}
	n := copy(d.cached[off:], b)
	for s := int(off) / sector; s*sector < int(off)+n; s++ {
		d.dirty[s] = true
	}
	return n, nil
}

// Sync makes everything written durable. After an error it does not try again.
func (d *Disk) Sync() error {
	d.step()
	d.Syncs++
	if d.SyncErr != nil {
		if err := d.SyncErr(); err != nil {
			clear(d.dirty) // as Linux: the pages are clean now, and not on the medium
			return err
		}
	}
	d.settle(1)
	clear(d.dirty)
	return nil
}

// Crash returns what is found after a power failure now.
func (d *Disk) Crash() []byte {
	d.settle([]float64{0, 0.5, 1}[d.rng.IntN(3)])
	return d.durable
}
