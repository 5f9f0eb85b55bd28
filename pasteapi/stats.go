package pasteapi

import (
	"sync/atomic"
	"unsafe"

	"github.com/pastenet/paste/pasteapi/internal/receive"
)

// Stats are the counters of a ring since Open.
type Stats struct {
	RingStats
	ReceiveStats
	SendStats
	StageStats
	DatagramStats
}

// RingStats count what a ring does as a whole.
type RingStats struct {
	Syscalls   uint64 `json:"syscalls"`    // system calls made for the ring
	Sleeps     uint64 `json:"sleeps"`      // of these: waits for events
	Conns      uint64 `json:"conns"`       // registered now
	NoFrames   uint64 `json:"no_frames"`   // times that the pool was empty
	RingErrors uint64 `json:"ring_errors"` // broken rules of a ring
}

// ReceiveStats count what comes in. The bytes of all ways together are those
// that TCP has accepted.
type ReceiveStats struct {
	Frames       uint64 `json:"frames"`        // received from the NIC
	Injected     uint64 `json:"injected"`      // of these: sent into TCP
	Merged       uint64 `json:"merged"`        // of these: together with the segment before
	NoTicket     uint64 `json:"no_ticket"`     // of these: without a ticket
	InjectFailed uint64 `json:"inject_failed"` // of these: refused by the injection device
	Malformed    uint64 `json:"malformed"`     // frames that were no TCP segment
	Steered      uint64 `json:"steered"`       // payloads received in place
	SteeredBytes uint64 `json:"steered_bytes"`
	Copied       uint64 `json:"copied"` // payloads copied by the verdict program
	CopiedBytes  uint64 `json:"copied_bytes"`
	Read         uint64 `json:"read"` // payloads read from their socket
	ReadBytes    uint64 `json:"read_bytes"`
	Reclaimed    uint64 `json:"reclaimed"`    // tickets that TCP never claimed
	Joined       uint64 `json:"joined"`       // connections that are copied after they were read
	Overflowed   uint64 `json:"overflowed"`   // connections that are read for good
	Held         uint64 `json:"held"`         // frames held back: their connection takes no replies
	HeldDropped  uint64 `json:"held_dropped"` // frames dropped instead of held
	WakeErrors   uint64 `json:"wake_errors"`  // failed fill ring wake-ups
	Unsteered    uint64 `json:"unsteered"`    // connections for which steering had no room
}

// SendStats count what goes out.
type SendStats struct {
	TxBatches   uint64 `json:"tx_batches"`   // sent by io_uring
	TxSends     uint64 `json:"tx_sends"`     // sends, in batches and by themselves
	TxSlots     uint64 `json:"tx_slots"`     // slots in these
	TxBytes     uint64 `json:"tx_bytes"`     // taken by the kernel
	TxPostponed uint64 `json:"tx_postponed"` // slots that waited for their peer
	TxDropped   uint64 `json:"tx_dropped"`   // slots for unregistered sockets
	TxFailed    uint64 `json:"tx_failed"`    // connections given up in sending
}

// StageStats say how long the stages of receiving took, in nanoseconds, exclusive of
// each other. All are 0 without Options.Stages.
type StageStats struct {
	HarvestNs uint64 `json:"harvest_ns"` // descriptors from the NIC queues, and free frames to them
	TicketNs  uint64 `json:"ticket_ns"`  // parsing, looking up the connection, tickets
	InjectNs  uint64 `json:"inject_ns"`  // the system calls that inject, TCP and its programs included
	DeliverNs uint64 `json:"deliver_ns"` // the verdict program's deliveries, into the order of connections
	SocketNs  uint64 `json:"socket_ns"`  // system calls that read from sockets
	EmitNs    uint64 `json:"emit_ns"`    // filling slots
}

// DatagramStats count what UDP sockets receive and send.
type DatagramStats struct {
	UDPReceived  uint64 `json:"udp_received"` // datagrams
	UDPBytes     uint64 `json:"udp_bytes"`
	UDPTruncated uint64 `json:"udp_truncated"` // of these: longer than a buffer
	UDPErrors    uint64 `json:"udp_errors"`    // told by the network
	UDPSent      uint64 `json:"udp_sent"`
	UDPSentBytes uint64 `json:"udp_sent_bytes"`
	UDPDropped   uint64 `json:"udp_dropped"` // datagrams that could not be sent
}

const statFields = unsafe.Sizeof(Stats{}) / 8

func (s *Stats) fields() *[statFields]uint64 { return (*[statFields]uint64)(unsafe.Pointer(s)) }

// add sums counters.
func (s *Stats) add(o *Stats) {
	for i := range s.fields() {
		s.fields()[i] += o.fields()[i]
	}
}

// Stats returns the counters as they were when the ring last looked at its
// events, which it does before it sleeps and every few Polls. It may be called
// from any goroutine.
func (r *Ring) Stats() Stats {
	var s Stats
	for i := range s.fields() {
		s.fields()[i] = atomic.LoadUint64(&r.published.fields()[i])
	}
	return s
}

// publish makes the counters visible to other goroutines.
func (r *Ring) publish() {
	s := r.count()
	for i, v := range s.fields() {
		atomic.StoreUint64(&r.published.fields()[i], v)
	}
}

// count brings together what the parts of the ring have counted.
func (r *Ring) count() Stats {
	in, out := &r.in.Counters, &r.out.Counters
	return Stats{
		RingStats: RingStats{
			Syscalls: r.own.Syscalls + in.Syscalls + out.Syscalls + r.wait.Syscalls + r.udp.count.Syscalls,
			Sleeps:   r.wait.Sleeps, Conns: uint64(r.conns.Len()),
			NoFrames: r.frames.Empty, RingErrors: r.own.RingErrors,
		},
		ReceiveStats: ReceiveStats{
			Frames: in.Frames, Injected: in.Injected, Merged: in.Merged, NoTicket: in.NoTicket,
			InjectFailed: in.InjectFailed, Malformed: in.Malformed,
			Steered: in.Steered, SteeredBytes: in.SteeredBytes,
			Copied: in.Copied, CopiedBytes: in.CopiedBytes, Read: in.Read, ReadBytes: in.ReadBytes,
			Reclaimed: in.Reclaimed, Overflowed: in.Overflowed, Joined: in.Joined,
			Held: in.Held, HeldDropped: in.HeldDropped, WakeErrors: in.WakeErrors, Unsteered: in.Unsteered,
		},
		SendStats: SendStats{
			TxBatches: out.Batches, TxSends: out.Sends, TxSlots: out.Slots, TxBytes: out.Bytes,
			TxPostponed: out.Postponed, TxDropped: out.Dropped, TxFailed: out.FailedConns,
		},
		StageStats:    r.stages(),
		DatagramStats: r.udp.stats(),
	}
}

func (r *Ring) stages() StageStats {
	clock := r.in.Clock()
	if clock == nil {
		return StageStats{}
	}
	ns := func(s receive.Stage) uint64 { return uint64(clock.Time[s]) }
	return StageStats{
		HarvestNs: ns(receive.Harvest), TicketNs: ns(receive.Ticket), InjectNs: ns(receive.Inject),
		DeliverNs: ns(receive.Deliver), SocketNs: ns(receive.Socket), EmitNs: ns(receive.Emit),
	}
}
