package pasteapi

import (
	"fmt"

	"github.com/pastenet/paste/pasteapi/internal/receive"
)

// fillLeast is the smallest fill ring, in frames: a NIC queue with less drops
// what comes in one burst.
const fillLeast = 128

// ringFrames is how many frames a ring may hold besides those of its slots: what
// circulates, and what Keep takes in advance.
const ringFrames = 640

// fillSize is how many frames each of a number of NIC queues is given; as many
// may wait in its RX ring. Queues get less than the most where rings and queues
// would take more than half of the pool: the rest is for what the application
// keeps. Where they would take more than three quarters of it with the least, it
// is an error, before anything is received. How full the pool is makes no
// difference: a full one has to be served too.
func fillSize(o *Options, queues int) (int, error) {
	frames := int(o.Pool.Frames() - o.Pool.FirstFrame())
	rings := o.Rings * (2*o.Slots + ringFrames)
	size := receive.FillSize
	for size > fillLeast && rings+2*queues*size > frames/2 {
		size /= 2
	}
	if need := (rings + 2*queues*size) / 3 * 4; need > frames {
		return 0, fmt.Errorf("%d rings and %d RX queues of %s want a pool of at least %d frames, and it has %d of %d bytes: make it larger by %d MiB, or give the interface fewer queues (`ethtool -L`): %w",
			o.Rings, queues, o.NIC, need, frames, o.Pool.FrameSize(), (need-frames)*o.Pool.FrameSize()>>20+1, ErrNoBuffers)
	}
	return size, nil
}
