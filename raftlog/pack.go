package raftlog

import (
	"fmt"

	"github.com/pastenet/paste/pmem"
)

// leastPiece is the least room in bytes for which an entry that does not fit
// is begun in a frame: a piece costs a log entry of 64 bytes.
const leastPiece = 256

// packer lays payloads one behind the other in frames.
type packer struct {
	p      *pmem.Pool
	frame  uint32 // that is being filled; 0: none
	used   int    // bytes of it
	passed []uint32
	frags  []pmem.Fragment // of the payload
}

// place copies a payload, in two parts, and returns where it lies, until the next call. Until
// placed is called the frames are held.
func (k *packer) place(parts ...[]byte) ([]pmem.Fragment, error) {
	k.frags = k.frags[:0]
	for _, b := range parts {
		for len(b) > 0 {
			if left := k.p.FrameSize() - k.used; k.frame == 0 || len(b) > left && left < leastPiece {
				if err := k.next(); err != nil {
					return nil, err
				}
			}
			n := copy(k.p.Frame(k.frame)[k.used:], b)
			k.add(n)
			b = b[n:]
		}
	}
	return k.frags, nil
}

// add notes that n more bytes of the frame are used.
func (k *packer) add(n int) {
	if i := len(k.frags) - 1; i >= 0 && k.frags[i].Frame == k.frame {
		k.frags[i].Len += uint16(n)
	} else {
		k.frags = append(k.frags, pmem.Fragment{Frame: k.frame, Off: uint16(k.used), Len: uint16(n)})
	}
	k.used += n
}

// next goes on in a free frame.
func (k *packer) next() error {
	var f [1]uint32
	if k.p.Alloc(f[:]) == 0 {
		return fmt.Errorf("%w: no frame is free; take a snapshot, so that old entries can be deleted, or create a larger pool", pmem.ErrFull)
	}
	if k.frame != 0 {
		k.passed = append(k.passed, k.frame)
	}
	k.frame, k.used = f[0], 0
	return nil
}

// placed gives up the frames that are full: the log has references of its own.
func (k *packer) placed() {
	k.p.UnrefAll(k.passed)
	k.passed = k.passed[:0]
}

func (k *packer) close() {
	k.p.Unref(k.frame)
	k.frame, k.used = 0, 0
}
