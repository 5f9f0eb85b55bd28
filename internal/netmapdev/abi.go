package netmapdev

import "unsafe"

// Requests and numbers are those of net/netmap.h (API version 14), net/netmap_legacy.h
// and, for PASTE, of the tree of 2022.
const (
	apiLeast = 14
	apiMost  = 15

	nioctl       = 'i' << 8
	NIOCGINFO    = 3<<30 | unsafe.Sizeof(legacy{})<<16 | nioctl | 145
	NIOCREGIF    = 3<<30 | unsafe.Sizeof(legacy{})<<16 | nioctl | 146
	NIOCTXSYNC   = nioctl | 148
	NIOCRXSYNC   = nioctl | 149
	NIOCCTRL     = 3<<30 | unsafe.Sizeof(header{})<<16 | nioctl | 151
	requestBytes = 4096 // NETMAP_REQ_MAXSIZE: a request with its options
)

type request uint16

// NETMAP_REQ_*.
const (
	reqRegister request = 1 + iota
	reqPortInfo
	reqValeAttach
	reqValeDetach
	reqValeList
	reqHdrSet
	reqHdrGet
	reqValeNewif
	reqValeDelif
	reqPollingEnable
	reqPollingDisable
	reqPoolsInfo
	reqKloopStart
	reqKloopStop
	reqCSBEnable
	reqPSTAttach
	reqPSTDetach
	reqPSTFdReg
)

var requestNames = [...]string{
	reqRegister: "REGISTER", reqPortInfo: "PORT_INFO_GET", reqValeAttach: "VALE_ATTACH", reqValeDetach: "VALE_DETACH",
	reqValeList: "VALE_LIST", reqHdrSet: "PORT_HDR_SET", reqHdrGet: "PORT_HDR_GET", reqValeNewif: "VALE_NEWIF",
	reqValeDelif: "VALE_DELIF", reqPollingEnable: "VALE_POLLING_ENABLE", reqPollingDisable: "VALE_POLLING_DISABLE",
	reqPoolsInfo: "POOLS_INFO_GET", reqKloopStart: "SYNC_KLOOP_START", reqKloopStop: "SYNC_KLOOP_STOP",
	reqCSBEnable: "CSB_ENABLE", reqPSTAttach: "PST_ATTACH", reqPSTDetach: "PST_DETACH", reqPSTFdReg: "PST_FD_REG",
}

func (r request) String() string {
	if int(r) < len(requestNames) && r != 0 {
		return "NETMAP_REQ_" + requestNames[r]
	}
	return "unknown netmap request"
}

// bodySize is the size of a request's body in bytes; 0: it has none.
func (r request) bodySize() int {
	switch r {
	case reqRegister:
		return int(unsafe.Sizeof(register{}))
	case reqPortInfo:
		return int(unsafe.Sizeof(portInfo{}))
	case reqValeAttach, reqPSTAttach:
		return int(unsafe.Sizeof(attach{}))
	case reqValeNewif, reqPollingEnable, reqPollingDisable:
		return 16
	case reqPoolsInfo:
		return int(unsafe.Sizeof(poolsInfo{}))
	case reqValeDetach, reqValeList, reqHdrSet, reqHdrGet, reqKloopStart, reqPSTDetach, reqPSTFdReg:
		return 8
	}
	return 0
}

// NETMAP_REQ_OPT_*.
const (
	optExtmem = 1 + iota
	optEventfds
	optCSB
	optKloopMode
	optOffsets
	optMax
)

// optionSize is the size of what follows an option's header. size is what the
// header says, for those whose size varies.
func optionSize(kind uint32, size uint64) uint64 {
	switch kind {
	case optExtmem:
		return uint64(unsafe.Sizeof(extmem{}))
	case optEventfds:
		return max(size, optionHeader) - optionHeader
	case optCSB:
		return 16
	case optKloopMode:
		return 8
	case optOffsets:
		return 32
	}
	return 0
}

// Modes and flags of struct nmreq_register (NR_*).
const (
	modeAllNIC     = 1
	modeSW         = 2
	modeNICSW      = 3
	modeOneNIC     = 4
	modePipeMaster = 5
	modePipeSlave  = 6
	modeNull       = 7
	modeOneSW      = 8

	flagMonitorTX = 0x100
	flagMonitorRX = 0x200
	flagExclusive = 0x800
	flagRXOnly    = 0x2000
	flagTXOnly    = 0x4000
	flagVnetHdr   = 0x8000 // the program bears virtio-net headers
	flagDoRXPoll  = 0x10000
	flagNoTXPoll  = 0x20000
)

// header is struct nmreq_header.
type header struct {
	version  uint16
	request  request
	reserved uint32
	name     [64]byte
	options  uint64 // address of the first
	body     uint64 // address
}

const optionHeader = 24

// optionHead is struct nmreq_option.
type optionHead struct {
	next   uint64 // address
	kind   uint32
	status uint32 // errno
	size   uint64
}

// register is struct nmreq_register.
type register struct {
	offset, memSize                            uint64
	txSlots, rxSlots                           uint32
	txRings, rxRings, hostTxRings, hostRxRings uint16
	memID, ringID                              uint16
	mode                                       uint32
	extraBufs                                  uint32
	_                                          uint32
	flags                                      uint64
}

// portInfo is struct nmreq_port_info_get.
type portInfo struct {
	memSize                                    uint64
	txSlots, rxSlots                           uint32
	txRings, rxRings, hostTxRings, hostRxRings uint16
	memID                                      uint16
	_                                          [3]uint16
}

// attach is struct nmreq_vale_attach.
type attach struct {
	reg  register
	port uint32
	_    uint32
}

// poolsInfo is struct nmreq_pools_info.
type poolsInfo struct {
	memSize              uint64
	memID                uint16
	_                    [3]uint16
	ifOffset             uint64
	ifTotal, ifSize      uint32
	ringOffset           uint64
	ringTotal, ringSize  uint32
	bufOffset            uint64
	bufTotal, bufObjSize uint32
}

// extmem is struct nmreq_opt_extmem behind its header.
type extmem struct {
	address uint64
	info    poolsInfo
}

// legacy is struct nmreq.
type legacy struct {
	name             [16]byte
	version          uint32
	offset, memSize  uint32
	txSlots, rxSlots uint32
	txRings, rxRings uint16
	ringID           uint16
	cmd              uint16
	arg1, arg2       uint16
	arg3             uint32
	flags            uint32
	_                uint32
}

// netmapIf is struct netmap_if without the offsets behind it.
type netmapIf struct {
	name                   [16]byte
	version, flags         uint32
	txRings, rxRings       uint32
	bufsHead               uint32
	hostTxRings, hostRings uint32
	_                      [3]uint32
}

// A change of these must not compile.
var (
	_ [88]byte           = [unsafe.Sizeof(header{})]byte{}
	_ [optionHeader]byte = [unsafe.Sizeof(optionHead{})]byte{}
	_ [56]byte           = [unsafe.Sizeof(register{})]byte{}
	_ [32]byte           = [unsafe.Sizeof(portInfo{})]byte{}
	_ [64]byte           = [unsafe.Sizeof(attach{})]byte{}
	_ [64]byte           = [unsafe.Sizeof(poolsInfo{})]byte{}
	_ [72]byte           = [unsafe.Sizeof(extmem{})]byte{}
	_ [60]byte           = [unsafe.Sizeof(legacy{})]byte{}
	_ [56]byte           = [unsafe.Sizeof(netmapIf{})]byte{}
)
