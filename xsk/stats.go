package xsk

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Stats are the kernel's counters of one socket since it was created (struct xdp_statistics).
type Stats struct {
	RxDropped         uint64 // frames dropped for other reasons than an invalid descriptor
	RxInvalidDescs    uint64 // invalid addresses found in the fill ring
	TxInvalidDescs    uint64 // invalid TX descriptors, which were not sent
	RxRingFull        uint64 // frames dropped because the RX ring was full
	FillRingEmpty     uint64 // times that a frame arrived and the fill ring was empty
	TxRingEmptyChecks uint64 // times that the kernel looked into the TX ring and found nothing
}

// Stats reads the counters.
func (s *Socket) Stats() (Stats, error) {
	var st unix.XDPStatistics
	if err := getsockopt(s.fd, unix.SOL_XDP, unix.XDP_STATISTICS, unsafe.Pointer(&st), unsafe.Sizeof(st)); err != nil {
		return Stats{}, fmt.Errorf("statistics of AF_XDP socket on queue %d of %s: %w", s.queue, s.name, closedError(s.fd, err))
	}
	return Stats{
		RxDropped:         st.Rx_dropped,
		RxInvalidDescs:    st.Rx_invalid_descs,
		TxInvalidDescs:    st.Tx_invalid_descs,
		RxRingFull:        st.Rx_ring_full,
		FillRingEmpty:     st.Rx_fill_ring_empty_descs,
		TxRingEmptyChecks: st.Tx_ring_empty_descs,
	}, nil
}
