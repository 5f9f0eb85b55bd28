package uring

// Constants and structures of include/uapi/linux/io_uring.h. x/sys/unix has
// the system call numbers only.
const (
	opNop         = 0
	opWritev      = 2
	opPollAdd     = 6
	opSendMsg     = 9
	opAccept      = 13
	opAsyncCancel = 14
	opClose       = 19
	opWrite       = 23
	opSend        = 26
	opRecv        = 27

	setupCQSize       = 1 << 3
	setupClamp        = 1 << 4
	setupSubmitAll    = 1 << 7
	setupCoopTaskrun  = 1 << 8
	setupTaskrunFlag  = 1 << 9
	setupSingleIssuer = 1 << 12
	setupDeferTaskrun = 1 << 13
	setupNoSQArray    = 1 << 16

	featSingleMmap = 1 << 0
	featNoDrop     = 1 << 1
	featExtArg     = 1 << 8

	offSQRing = 0
	offSQEs   = 0x10000000

	sqCQOverflow = 1 << 1
	sqTaskrun    = 1 << 2

	enterGetEvents = 1 << 0
	enterExtArg    = 1 << 3

	registerFiles      = 2
	unregisterFiles    = 3
	registerPBufRing   = 22
	unregisterPBufRing = 23
	registerSyncCancel = 24

	recvMultishot   = 1 << 1 // in SQE.ioprio
	acceptMultishot = 1 << 0 // in SQE.ioprio
	pollAddMulti    = 1 << 0 // in SQE.len

	cancelAll = 1 << 0
	cancelFD  = 1 << 1
	cancelAny = 1 << 2
)

// Flags for [SQE.SetFlags].
const (
	// FlagFixedFile takes the SQE's descriptor for an index into
	// [Ring.RegisterFiles] (IOSQE_FIXED_FILE).
	FlagFixedFile = 1 << 0
	// FlagLink starts the next SQE only after this one succeeded (IOSQE_IO_LINK).
	FlagLink = 1 << 2
	// FlagBufferSelect takes the buffer from the SQE's buffer group
	// (IOSQE_BUFFER_SELECT).
	FlagBufferSelect = 1 << 5
	// FlagCQESkip posts no completion when the operation succeeds
	// (IOSQE_CQE_SKIP_SUCCESS). A failure is still reported.
	FlagCQESkip = 1 << 6
)

// Bits of [CQE.Flags].
const (
	// CQEBuffer says that [CQE.BufferID] is valid.
	CQEBuffer = 1 << 0
	// CQEMore says that the multishot operation goes on; without it the
	// operation has ended and must be submitted again if it is still wanted.
	CQEMore = 1 << 1
	// CQESockNonEmpty says that more bytes wait in the socket.
	CQESockNonEmpty = 1 << 2
)

// SQE is a submission queue entry (struct io_uring_sqe, 64 bytes). It lives in
// memory shared with the kernel: use it between [Ring.GetSQE] and the next
// submit, and don't keep it.
type SQE struct {
	opcode      uint8
	flags       uint8
	ioprio      uint16
	fd          int32
	off         uint64
	addr        uint64
	len         uint32
	opFlags     uint32
	userData    uint64
	bufGroup    uint16
	personality uint16
	fileIndex   int32
	addr3       uint64
	_           uint64
}

// CQE is a completion queue entry (struct io_uring_cqe, 16 bytes) in memory
// shared with the kernel, valid until [Ring.Advance] passes it.
type CQE struct {
	UserData uint64
	// Res is the operation's result: what the system call would have
	// returned, or a negative errno.
	Res   int32
	Flags uint32
}

// BufferID is the provided buffer that the completion used. It has a meaning
// only when Flags has [CQEBuffer].
func (c *CQE) BufferID() uint16 { return uint16(c.Flags >> 16) }

// More reports whether the same SQE will post further completions.
func (c *CQE) More() bool { return c.Flags&CQEMore != 0 }

type sqOffsets struct {
	head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
	_                                                           uint64
}

type cqOffsets struct {
	head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
	_                                                           uint64
}

// params is struct io_uring_params, 120 bytes.
type params struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32

	_     [3]uint32
	sqOff sqOffsets
	cqOff cqOffsets
}

// geteventsArg is struct io_uring_getevents_arg followed by the timespec it
// points at, so that both live in the same unmovable page.
type geteventsArg struct {
	sigmask   uint64
	sigmaskSz uint32
	minWait   uint32
	ts        uint64

	sec, nsec int64
}

const geteventsArgSize = 24

// bufReg is struct io_uring_buf_reg.
type bufReg struct {
	ringAddr    uint64
	ringEntries uint32
	bgid        uint16
	flags       uint16
	_           [3]uint64
}

// bufEntry is struct io_uring_buf. In entry 0 the last field is the ring's tail.
type bufEntry struct {
	addr uint64
	len  uint32
	bid  uint16
	tail uint16
}

// syncCancelReg is struct io_uring_sync_cancel_reg.
type syncCancelReg struct {
	addr      uint64
	fd        int32
	flags     uint32
	sec, nsec int64
	_         [4]uint64
}
