package ringnet

import (
	"sync"

	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

const (
	// holdAt is how many bytes of a connection may wait for its reader before its
	// peer has to wait, and goOnAt how many may be left when it goes on.
	holdAt = 256 << 10
	goOnAt = 64 << 10
	// smallPiece is up to how many bytes that were copied once are copied again,
	// instead of keeping a whole packet buffer for them, and chunk how many such
	// bytes are kept together.
	smallPiece = 512
	chunk      = 4096
)

// piece is payload that waits for its reader: in a frame of which the piece has a
// reference, or in memory of its own.
type piece struct {
	frag pmem.Fragment
	heap []byte // nil: in frag
}

// inbox is what a connection has received and nobody has read.
type inbox struct {
	mu     sync.Mutex
	pieces []piece // FIFO from first
	first  int
	bytes  int // in the pieces

	buf     []byte        // of the Read that waits; the pump fills it
	filled  int           // bytes of it
	waiting bool          // somebody receives from wake
	wake    chan struct{} // gets one value when waiting ends

	eof      bool  // nothing follows the pieces
	cause    error // why; nil is an orderly end
	shut     bool  // CloseRead
	closed   bool
	held     bool // the ring was told to hold the connection
	deadline deadline
}

// signal wakes up whoever waits. The lock is held.
func (in *inbox) signal() {
	if in.waiting {
		in.waiting = false
		in.buf = nil
		in.wake <- struct{}{} // has room: it is empty while somebody waits
	}
}

// add takes the payload of a segment, or what the reader that waits does not take of
// it. The lock is held, and the pump's goroutine calls.
func (in *inbox) add(seg pasteapi.Segment) {
	payload := seg.Payload()
	if in.closed || in.shut {
		return
	}
	taken := 0
	if in.buf != nil {
		taken = copy(in.buf[in.filled:], payload)
		if in.filled += taken; in.filled == len(in.buf) {
			in.buf = nil
		}
		if taken == len(payload) {
			return
		}
	}
	rest := payload[taken:]
	in.bytes += len(rest)
	if !seg.Copied() || len(rest) > smallPiece {
		if frag, err := seg.Keep(); err == nil {
			frag.Off += uint16(taken)
			frag.Len -= uint16(taken)
			in.pieces = append(in.pieces, piece{frag: frag})
			return
		} // else the pool has no frame to exchange it for
	}
	in.addCopy(rest)
}

func (in *inbox) addCopy(b []byte) {
	if n := len(in.pieces); n > in.first {
		if last := &in.pieces[n-1]; cap(last.heap)-len(last.heap) >= len(b) {
			last.heap = append(last.heap, b...)
			return
		}
	}
	heap := make([]byte, 0, max(chunk, len(b)))
	if in.first == len(in.pieces) && len(b) <= smallPiece {
		heap = make([]byte, 0, len(b)) // most are read before another one comes
	}
	in.pieces = append(in.pieces, piece{heap: append(heap, b...)})
}

// read moves bytes into b, as many as there are and fit. The lock is held.
func (in *inbox) read(pool *pmem.Pool, b []byte) (n int) {
	for n < len(b) && in.first < len(in.pieces) {
		p := &in.pieces[in.first]
		if p.heap != nil {
			k := copy(b[n:], p.heap)
			p.heap = p.heap[k:]
			n += k
			if len(p.heap) == 0 {
				in.pop()
			}
			continue
		}
		k := copy(b[n:], payload(pool, p.frag))
		p.frag.Off += uint16(k)
		p.frag.Len -= uint16(k)
		n += k
		if p.frag.Len == 0 {
			pool.Unref(p.frag.Frame)
			in.pop()
		}
	}
	in.bytes -= n
	return n
}

// take takes the first piece out. The lock is held, and there is one.
func (in *inbox) take() piece {
	p := in.pieces[in.first]
	in.bytes -= len(p.heap) + int(p.frag.Len)
	in.pop()
	return p
}

func (in *inbox) pop() {
	in.pieces[in.first] = piece{}
	if in.first++; in.first == len(in.pieces) {
		in.pieces, in.first = in.pieces[:0], 0
	}
}

func (in *inbox) empty() bool { return in.first == len(in.pieces) }

// drop forgets everything. The lock is held.
func (in *inbox) drop(pool *pmem.Pool) {
	for !in.empty() {
		if p := in.take(); p.heap == nil {
			pool.Unref(p.frag.Frame)
		}
	}
	in.pieces = nil
}

func payload(pool *pmem.Pool, f pmem.Fragment) []byte {
	return pool.Frame(f.Frame)[f.Off : f.Off+f.Len]
}
