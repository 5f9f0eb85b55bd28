// Package receive brings the bytes of TCP connections into RX slots. There are
// several ways in, which have the same interface; a stream hands over what came
// by them in the order of the connection.
package receive

// way is one way by which bytes come in. What it fetches it puts into the
// streams that they belong to, in order.
type way interface {
	// fetch moves what has arrived into the streams. It does not block. An error
	// is one that does not pass.
	fetch() error
	// pending says, without a system call, whether fetch may find something.
	pending() bool
}

// Counters count since the ring was opened.
type Counters struct {
	Syscalls     uint64 // system calls made to receive
	Frames       uint64 // received from the NIC
	Injected     uint64 // of these: sent into TCP
	Merged       uint64 // of these: together with the segment before
	NoTicket     uint64 // of these: without a ticket
	InjectFailed uint64 // of these: refused by the injection device
	Malformed    uint64 // frames that were no TCP segment
	Steered      uint64 // payloads received in place
	SteeredBytes uint64
	Copied       uint64 // payloads copied by the verdict
	CopiedBytes  uint64
	Read         uint64 // payloads read from the socket
	ReadBytes    uint64
	Reclaimed    uint64 // tickets that TCP never claimed
	Joined       uint64 // connections that are copied after they were read
	Overflowed   uint64 // connections that are read for good
	Held         uint64 // frames held back: their connection takes no replies
	HeldDropped  uint64 // frames dropped instead of held
	WakeErrors   uint64 // failed fill ring wake-ups
	Unsteered    uint64 // connections for which steering had no room
}
