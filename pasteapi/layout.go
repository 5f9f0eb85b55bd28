package pasteapi

import (
	"fmt"
	"unsafe"
)

// Slot flags, net/netmap.h (NS_*).
//
// In the TX slots of connections NS_REPORT and NS_MOREFRAG may be set and change
// nothing: a slot is done with when the sync returns, and a stream has no packets
// that one could belong to. Those below them are refused in a TX slot, with
// ErrRingCorrupt. In an RX slot NS_MOREFRAG says that a payload that was announced by
// Ring.Expect goes on in the next slot of the connection.
const (
	NS_BUF_CHANGED = 0x0001 // the buffer of the slot was exchanged
	NS_REPORT      = 0x0002
	NS_MOREFRAG    = 0x0020

	NS_FORWARD  = 0x0004 // to the host's ring
	NS_NO_LEARN = 0x0008 // of a switch
	NS_INDIRECT = 0x0010 // ptr is the address of the payload
	NS_TXMON    = 0x0040 // to a monitor

	// NS_RUN is ours: the buffer of an RX slot is a run of neighbouring frames, of 64 KiB
	// in all, and Len may be more than NrBufSize. There are such slots after Ring.Expect
	// only. Who puts another buffer in its place has all frames of it.
	NS_RUN = 0x4000
	// NS_COPIED is ours: the payload of an RX slot was copied or read, and was not
	// received where it lies.
	NS_COPIED = 0x8000
	// NS_DATAGRAM is ours: an RX slot is a datagram, of which the payload may be empty.
	NS_DATAGRAM = 0x2000
	// NS_ERROR is ours: it is no datagram, but tells that one could not be delivered. See
	// Segment.Err.
	NS_ERROR = 0x1000
	// NS_TRUNCATED is ours: the datagram was longer than the buffer; its header says how
	// long.
	NS_TRUNCATED = 0x0800

	unsupported = NS_FORWARD | NS_NO_LEARN | NS_INDIRECT | NS_TXMON
)

// Directions of a ring, net/netmap.h (enum txrx).
const (
	dirRX = 0
	dirTX = 1
)

// MaxDoff is the largest payload offset that a slot can carry: doff has ten
// bits.
const MaxDoff = 1<<10 - 1

// Slot is one entry of a ring: netmap's 16-byte struct netmap_slot. Ptr
// carries PASTE's fields as the 2022 API lays them out: bits 0-7 the netmap
// offset (always 0 here), bits 8-39 the socket's file descriptor, bits 40-49
// the payload offset (doff).
type Slot struct {
	BufIdx uint32 // frame of the pool
	Len    uint16 // bytes from the start of the buffer to the end of the payload
	Flags  uint16 // NS_*
	Ptr    uint64
}

const (
	fdShift   = 8
	fdMask    = 1<<32 - 1
	doffShift = 40
)

// Fd is the socket that the slot belongs to (upstream: nm_pst_getfd).
func (s *Slot) Fd() int { return int(int32(s.Ptr >> fdShift & fdMask)) }

// SetFd sets the socket that the slot belongs to (upstream: nm_pst_setfd).
func (s *Slot) SetFd(fd int) {
	s.Ptr = s.Ptr&^(fdMask<<fdShift) | uint64(uint32(fd))<<fdShift
}

// Doff is the offset in bytes of the payload in the buffer (upstream:
// nm_pst_getdoff).
func (s *Slot) Doff() int { return int(s.Ptr >> doffShift & MaxDoff) }

// Closed says that a received slot is a close notice, which has no payload.
func (s *Slot) Closed() bool { return s.Doff() == int(s.Len) && s.Flags&NS_DATAGRAM == 0 }

// SetDoff sets the payload's offset, 0 to MaxDoff bytes (upstream:
// nm_pst_setdoff). It panics if doff does not fit its ten bits.
func (s *Slot) SetDoff(doff int) {
	if uint(doff) > MaxDoff {
		panic(fmt.Sprintf("pasteapi: doff %d: must be from 0 to %d", doff, MaxDoff))
	}
	s.Ptr = s.Ptr&^(MaxDoff<<doffShift) | uint64(doff)<<doffShift
}

// set fills all of a slot but its flags.
func (s *Slot) set(buf uint32, fd, doff, length int) {
	s.BufIdx = buf
	s.Len = uint16(doff + length)
	s.Ptr = uint64(uint32(fd))<<fdShift | uint64(doff)<<doffShift
}

// NetmapRing is netmap's struct netmap_ring as x86-64 lays it out: a 256-byte
// header with the slots behind it. The application owns the slots from Head up
// to Tail; it writes Head, Cur, Flags and those slots, and nothing else.
type NetmapRing struct {
	BufOfs     int64  // from the ring to buffer 0, bytes
	NumSlots   uint32 // one of them always stays empty
	NrBufSize  uint32 // bytes
	RingID     uint16
	Dir        uint16 // 0 RX, 1 TX
	Head       uint32 // first slot the application still owns
	Cur        uint32 // wake-up point, Head or behind it
	Tail       uint32 // first slot the port owns
	Flags      uint32
	_          uint32 // ts is aligned to 8
	TsSec      int64  // time of the last sync, Unix seconds
	TsUsec     int64  // and microseconds
	OffsetMask uint64
	BufAlign   uint64
	_          [184]byte
}

const ringHeaderSize = 256

// The layout is a promise to C programs; a change must not compile.
var (
	_ [ringHeaderSize]byte = [unsafe.Sizeof(NetmapRing{})]byte{}
	_ [16]byte             = [unsafe.Sizeof(Slot{})]byte{}
	_ [8]byte              = [unsafe.Offsetof(NetmapRing{}.NumSlots)]byte{}
	_ [16]byte             = [unsafe.Offsetof(NetmapRing{}.RingID)]byte{}
	_ [20]byte             = [unsafe.Offsetof(NetmapRing{}.Head)]byte{}
	_ [28]byte             = [unsafe.Offsetof(NetmapRing{}.Tail)]byte{}
	_ [40]byte             = [unsafe.Offsetof(NetmapRing{}.TsSec)]byte{}
	_ [56]byte             = [unsafe.Offsetof(NetmapRing{}.OffsetMask)]byte{}
	_ [64]byte             = [unsafe.Offsetof(NetmapRing{}.BufAlign)]byte{}
)

// ringBytes is the size in bytes of a ring with n slots.
func ringBytes(n int) int { return ringHeaderSize + n*int(unsafe.Sizeof(Slot{})) }

// Slot returns slot i, which must be below NumSlots.
func (n *NetmapRing) Slot(i uint32) *Slot {
	if i >= n.NumSlots {
		panic(fmt.Sprintf("pasteapi: slot %d of a ring of %d", i, n.NumSlots))
	}
	return n.slot(i)
}

func (n *NetmapRing) slot(i uint32) *Slot {
	return (*Slot)(unsafe.Add(unsafe.Pointer(n), ringHeaderSize+uintptr(i)*unsafe.Sizeof(Slot{})))
}

// Next is the slot index after i (upstream: nm_ring_next).
func (n *NetmapRing) Next(i uint32) uint32 {
	if i++; i == n.NumSlots {
		return 0
	}
	return i
}

// Space is the number of slots from Head to Tail: received ones in an RX ring,
// free ones in a TX ring (upstream: nm_ring_space).
func (n *NetmapRing) Space() uint32 {
	if n.Tail >= n.Head {
		return n.Tail - n.Head
	}
	return n.Tail + n.NumSlots - n.Head
}

// Empty says whether the application owns no slot (upstream: nm_ring_empty).
func (n *NetmapRing) Empty() bool { return n.Head == n.Tail }

// Buf is the whole buffer of a slot (upstream: NETMAP_BUF). The index in the
// slot must be one that the ring gave out or a frame of the pool.
func (n *NetmapRing) Buf(s *Slot) []byte {
	at := unsafe.Add(unsafe.Pointer(n), n.BufOfs+int64(s.BufIdx)*int64(n.NrBufSize))
	return unsafe.Slice((*byte)(at), n.NrBufSize)
}

// Payload is the slot's payload in place: the bytes from doff to Len. It is
// empty in a close notice.
func (n *NetmapRing) Payload(s *Slot) []byte {
	doff, end := s.Doff(), int(s.Len)
	if end > int(n.NrBufSize) && s.Flags&NS_RUN == 0 || doff > end {
		return nil
	}
	at := unsafe.Add(unsafe.Pointer(n), n.BufOfs+int64(s.BufIdx)*int64(n.NrBufSize))
	return unsafe.Slice((*byte)(at), end)[doff:end:end]
}
