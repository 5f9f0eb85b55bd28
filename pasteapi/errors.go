package pasteapi

import (
	"errors"
	"fmt"
	"io/fs"
	"net"

	"github.com/pastenet/paste/pasteapi/internal/conns"
	"github.com/pastenet/paste/pasteapi/internal/frames"
	"github.com/pastenet/paste/pasteapi/internal/send"
)

var (
	// ErrClosed is returned by every call on a closed Port. It is a
	// net.ErrClosed.
	ErrClosed error = &sentinel{"port is closed", net.ErrClosed}
	// ErrNotSocket says that a descriptor is not a TCP socket.
	ErrNotSocket = conns.ErrNotSocket
	// ErrNotConnected says that a socket cannot be registered because it is
	// not connected: a listener, never connected, or reset by its peer. The
	// last is an ordinary event.
	ErrNotConnected = conns.ErrNotConnected
	// ErrRegistered says that the socket is registered already. It is an
	// fs.ErrExist.
	ErrRegistered = conns.ErrRegistered
	// ErrNotRegistered says that the ring does not know the socket. It is an
	// fs.ErrNotExist.
	ErrNotRegistered error = &sentinel{"socket is not registered", fs.ErrNotExist}
	// ErrTooManyConns says that Options.MaxConns connections are registered.
	ErrTooManyConns = errors.New("too many connections")
	// ErrNoBuffers says that the pool has no free frame.
	ErrNoBuffers = frames.ErrNone
	// ErrRingCorrupt says that the application broke the rules of a ring. The
	// ring has been repaired and can be used again.
	ErrRingCorrupt = errors.New("ring corrupted by the application")
	// ErrExpect says that a number of bytes was announced that no payload has.
	ErrExpect = errors.New("the least number of bytes is 0")
	// ErrLongSegment says that a payload is in more than one frame: Segment.KeepAll
	// keeps it.
	ErrLongSegment = errors.New("segment is longer than a frame")
	// ErrTxFull says that the TX ring has not as many free slots as a payload
	// needs: TxSync, or Poll, makes room.
	ErrTxFull = errors.New("no room in the tx ring")
	// ErrTxOverflow is the close cause of a connection that was given up
	// because its peer does not read: its queue passed Options.TxLimit.
	ErrTxOverflow = send.ErrOverflow
	// ErrFrameSize says that the NIC's MTU does not fit the pool's frames.
	ErrFrameSize = errors.New("mtu does not fit the pool's frames")
)

// sentinel is an error that means the same as one of the standard library's.
type sentinel struct {
	text string
	is   error
}

func (e *sentinel) Error() string { return e.text }
func (e *sentinel) Unwrap() error { return e.is }

// RingError says which rule an application broke, and where. It is an
// ErrRingCorrupt.
type RingError struct {
	Ring  string // "rx" or "tx"
	Field string // "head", "cur", "tail", or "slot 17 buf_idx"
	Value uint64
	Limit string // what would have been right
}

func (e *RingError) Error() string {
	return fmt.Sprintf("%s ring: %s is %d, must be %s: %v", e.Ring, e.Field, e.Value, e.Limit, ErrRingCorrupt)
}

func (e *RingError) Unwrap() error { return ErrRingCorrupt }
