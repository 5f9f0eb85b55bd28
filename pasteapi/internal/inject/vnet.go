package inject

import (
	"unsafe"

	"github.com/pastenet/paste/internal/tap"
)

// VnetHeaderSize is how many bytes of a buffer must lie before a frame that is
// injected.
const VnetHeaderSize = tap.HeaderSize

// header returns the place of the virtio header before a frame.
func header(frame unsafe.Pointer) *tap.Header {
	return (*tap.Header)(unsafe.Add(frame, -VnetHeaderSize))
}
