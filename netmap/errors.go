package netmap

import (
	"errors"

	"github.com/pastenet/paste/pasteapi"
)

var (
	// ErrClosed is returned by every call on a closed Port. It is a net.ErrClosed.
	ErrClosed = pasteapi.ErrClosed
	// ErrRingCorrupt says that the program broke the rules of a ring. The ring has
	// been repaired and can be used again.
	ErrRingCorrupt = pasteapi.ErrRingCorrupt
	// ErrBusy says that somebody has the rings already.
	ErrBusy = errors.New("in use")
	// ErrNoMemory says that a Memory has no room for more rings, or no more buffers
	// (netmap's ENOMEM).
	ErrNoMemory = errors.New("memory is full")
	// ErrFrame says that a frame could not be sent. It was dropped and counted.
	ErrFrame = errors.New("frame not sent")
	// ErrDown says that the NIC is down or gone.
	ErrDown = errors.New("interface is down or gone")
)

// RingError says which rule was broken, and where. It is an ErrRingCorrupt.
type RingError = pasteapi.RingError
