package netmap

import (
	"unsafe"

	"github.com/pastenet/paste/pasteapi"
)

// Ring is netmap's struct netmap_ring.
type Ring = pasteapi.NetmapRing

// Slot is netmap's struct netmap_slot. In one of a raw port Ptr is not used, and the
// frame begins at the start of the buffer.
type Slot = pasteapi.Slot

// Flags of a slot, net/netmap.h (NS_*).
const (
	NS_BUF_CHANGED = pasteapi.NS_BUF_CHANGED // the buffer of the slot was exchanged
	NS_REPORT      = pasteapi.NS_REPORT      // of TX: no more than is done for every slot: it is given back when it was sent
	NS_FORWARD     = pasteapi.NS_FORWARD     // refused: write the frame to the host's ring
	NS_NO_LEARN    = pasteapi.NS_NO_LEARN    // of TX on a switch: do not learn the source address
	NS_INDIRECT    = pasteapi.NS_INDIRECT    // refused: a frame is in its buffer
	NS_MOREFRAG    = pasteapi.NS_MOREFRAG    // the frame goes on in the next slot
)

// Flags of a ring, net/netmap.h (NR_*).
const (
	NR_TIMESTAMP = 0x0002 // Ring.TsSec and TsUsec are the time of each sync
	NR_FORWARD   = 0x0004 // changes nothing, see NS_FORWARD
)

const (
	ringHeader = 256
	slotSize   = unsafe.Sizeof(Slot{})

	dirRX = 0
	dirTX = 1
)

// headroom is what AF_XDP keeps free at the start of each chunk that it receives
// into (XDP_PACKET_HEADROOM). netmap's buffers begin behind it, so that a frame
// begins where its buffer does: buffer i is from this far into chunk i up to this
// far into chunk i+1, and what the last chunk lacks is a page behind it.
const headroom = 256

// ifHeader is the fixed part of struct netmap_if as x86-64 lays it out. Offsets of
// the rings follow, 8 bytes each, from the structure: TX, the host's TX, RX, the
// host's RX; 0 for those that are not open.
type ifHeader struct {
	Name                     [16]byte
	Version, Flags           uint32
	TxRings, RxRings         uint32
	BufsHead                 uint32 // first of the extra buffers, chained by their first 4 bytes
	HostTxRings, HostRxRings uint32
	_                        [3]uint32
}

const (
	ifSize     = 56
	apiVersion = 14 // NETMAP_API
)

// The layout is a promise to C programs; a change must not compile.
var (
	_ [ifSize]byte = [unsafe.Sizeof(ifHeader{})]byte{}
	_ [24]byte     = [unsafe.Offsetof(ifHeader{}.TxRings)]byte{}
	_ [32]byte     = [unsafe.Offsetof(ifHeader{}.BufsHead)]byte{}
	_ [36]byte     = [unsafe.Offsetof(ifHeader{}.HostTxRings)]byte{}
)

// ringSize is the size in bytes of a ring.
func ringSize(slots int) int { return ringHeader + slots*int(slotSize) }
