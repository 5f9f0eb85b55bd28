package xsk

import "unsafe"

// Bits of Desc.Options (linux/if_xdp.h).
const (
	// DescMore (XDP_PKT_CONTD) says that the frame goes on in the next descriptor.
	DescMore = 1 << 0
	// DescTxMetadata (XDP_TX_METADATA) says that a TxMetadata lies immediately before Desc.Addr.
	DescTxMetadata = 1 << 1
)

// Bits of TxMetadata.Flags (linux/if_xdp.h).
const (
	// TxMetadataTimestamp (XDP_TXMD_FLAGS_TIMESTAMP) asks for the transmission time on completion.
	TxMetadataTimestamp = 1 << 0
	// TxMetadataChecksum (XDP_TXMD_FLAGS_CHECKSUM) asks for the checksum from CsumStart
	// to the end of the frame to be stored at CsumStart+CsumOffset. That field must hold
	// the (uncomplemented) pseudo-header sum. In copy mode the frame becomes an skb with
	// CHECKSUM_PARTIAL: between local devices no sum is ever computed.
	TxMetadataChecksum = 1 << 1
	// TxMetadataLaunchTime (XDP_TXMD_FLAGS_LAUNCH_TIME, Linux 6.14) asks for transmission
	// at LaunchTime.
	TxMetadataLaunchTime = 1 << 2
)

// TxMetadata is struct xsk_tx_metadata of linux/if_xdp.h as the program writes it: the
// "request" half of its union. The kernel may overwrite the bytes behind Flags with a
// time stamp on completion.
type TxMetadata struct {
	Flags      uint64
	CsumStart  uint16 // offset from Desc.Addr, bytes
	CsumOffset uint16 // offset from CsumStart, bytes
	_          uint32
	LaunchTime uint64 // nanoseconds, clock of the device
}

// TxMetadataSize is the smallest useful UmemConfig.TxMetadataLen, the size of
// the structure in Linux 6.8. LaunchTime is the part behind it: to use
// that, reserve the 24 bytes of the whole TxMetadata.
const TxMetadataSize = 16

// SetTxChecksum writes the metadata that asks for a checksum (see TxMetadataChecksum) in
// front of the frame that d describes and sets DescTxMetadata in it. The Umem must have
// been made with a TxMetadataLen, and d.Addr must be a multiple of 8 with that much room
// before it in its frame. It panics when the metadata would lie outside of the memory.
func (u *Umem) SetTxChecksum(d *Desc, csumStart, csumOffset uint16) {
	at := d.Addr - uint64(u.cfg.TxMetadataLen)
	room := u.mem[at : at+TxMetadataSize]
	m := (*TxMetadata)(unsafe.Pointer(&room[0]))
	m.Flags = TxMetadataChecksum
	m.CsumStart = csumStart
	m.CsumOffset = csumOffset
	d.Options |= DescTxMetadata
}
