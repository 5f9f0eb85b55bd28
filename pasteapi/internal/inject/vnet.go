package inject

import "unsafe"

// vnetHeader is struct virtio_net_hdr (include/uapi/linux/virtio_net.h), which
// stands before each frame written to the device, in the machine's byte order.
type vnetHeader struct {
	flags      uint8
	gsoType    uint8
	hdrLen     uint16
	gsoSize    uint16
	csumStart  uint16 // from the start of the frame
	csumOffset uint16 // from csumStart
}

// VnetHeaderSize is how many bytes of a buffer must lie before a frame that is
// injected.
const VnetHeaderSize = 10

const (
	vnetNeedsCsum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	vnetGSOTCPv4  = 1 // VIRTIO_NET_HDR_GSO_TCPV4
	vnetGSOTCPv6  = 4 // VIRTIO_NET_HDR_GSO_TCPV6
)

// header returns the place of the virtio header before a frame.
func header(frame unsafe.Pointer) *vnetHeader {
	return (*vnetHeader)(unsafe.Add(frame, -VnetHeaderSize))
}
