package tap

// Header is struct virtio_net_hdr (include/uapi/linux/virtio_net.h), which stands
// before each frame on a device's descriptor, in the machine's byte order.
type Header struct {
	Flags      uint8
	GSOType    uint8
	HdrLen     uint16
	GSOSize    uint16
	CsumStart  uint16 // from the start of the frame
	CsumOffset uint16 // from CsumStart
}

// HeaderSize is the size of a Header in bytes.
const HeaderSize = 10

// Values of Flags and GSOType.
const (
	NeedsCsum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	GSOTCPv4  = 1 // VIRTIO_NET_HDR_GSO_TCPV4
	GSOTCPv6  = 4 // VIRTIO_NET_HDR_GSO_TCPV6
)
