package pasteapi

import (
	"errors"
	"fmt"
)

var (
	// ErrClosed is returned by every call on a closed Port.
	ErrClosed = errors.New("port is closed")
	// ErrNotSocket says that a descriptor is not a TCP socket.
	ErrNotSocket = errors.New("not a TCP socket")
	// ErrNotConnected says that a socket cannot be registered because it is
	// not connected: a listener, never connected, or reset by its peer. The
	// last is an ordinary event.
	ErrNotConnected = errors.New("socket is not connected")
	// ErrRegistered says that the socket is registered already.
	ErrRegistered = errors.New("socket is already registered")
	// ErrNotRegistered says that the ring does not know the socket.
	ErrNotRegistered = errors.New("socket is not registered")
	// ErrTooManyConns says that Options.MaxConns connections are registered.
	ErrTooManyConns = errors.New("too many connections")
	// ErrNoBuffers says that the pool has no free frame.
	ErrNoBuffers = errors.New("no free buffer in the pool")
	// ErrRingCorrupt says that the application broke the rules of a ring. The
	// ring has been repaired and can be used again.
	ErrRingCorrupt = errors.New("ring corrupted by the application")
	// ErrTxOverflow is the close cause of a connection that was given up
	// because its peer does not read: its queue passed Options.TxLimit.
	ErrTxOverflow = errors.New("peer does not read: send queue is full")
	// ErrFrameSize says that the NIC's MTU does not fit the pool's frames.
	ErrFrameSize = errors.New("mtu does not fit the pool's frames")
)

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
