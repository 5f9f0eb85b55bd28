package ringserve

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/pasteapi"
)

// Ring is what every server uses of a *pasteapi.Ring, whose documentation applies.
type Ring interface {
	RX() *pasteapi.NetmapRing
	TX() *pasteapi.NetmapRing
	Queues() int
	PlaceConnections(listeners ...int) error
	Register(fd int) error
	Unregister(fd int) error
	CloseCause(fd int) error
	TxQueued(fd int) int
	Poll(timeout time.Duration) (int, error)
	TxSync() error
	Watch(fd int) error
	Unwatch(fd int) error
	Ready() []int
	Wake()
}

// CloseWrite sends the end of the stream. A ring that has one of its own, as TLS has,
// sends that, too.
func CloseWrite(r Ring, fd int) error {
	if r, ok := r.(interface{ CloseWrite(fd int) error }); ok {
		return r.CloseWrite(fd)
	}
	return unix.Shutdown(fd, unix.SHUT_WR)
}

// Reset has the close of a descriptor reset its connection: nobody reads at the other
// end, and an orderly end would wait for it in the kernel.
func Reset(fd int) {
	// It can only fail for a descriptor that is no socket.
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}
