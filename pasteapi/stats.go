package pasteapi

import (
	"os"
	"sync/atomic"
	"unsafe"
)

// Stats are the counters of a ring since Open.
type Stats struct {
	Syscalls       uint64 `json:"syscalls"`        // system calls made for the ring
	Sleeps         uint64 `json:"sleeps"`          // of these: waits for events
	Frames         uint64 `json:"frames"`          // received from the NIC
	Injected       uint64 `json:"injected"`        // of these: sent into TCP
	Merged         uint64 `json:"merged"`          // of these: together with the segment before
	Unticketed     uint64 `json:"unticketed"`      // of these: without a ticket
	InjectFailed   uint64 `json:"inject_failed"`   // of these: refused for want of memory
	Malformed      uint64 `json:"malformed"`       // frames that were no TCP segment
	Delivered      uint64 `json:"delivered"`       // payloads received in place
	DeliveredBytes uint64 `json:"delivered_bytes"` //
	Stray          uint64 `json:"stray"`           // payloads received by the copy path
	StrayBytes     uint64 `json:"stray_bytes"`     //
	CopiedBytes    uint64 `json:"copied_bytes"`    // of these: by the verdict program, the rest by recv
	Reclaimed      uint64 `json:"reclaimed"`       // tickets that TCP never claimed
	Overflowed     uint64 `json:"overflowed"`      // connections on the copy path for good
	Held           uint64 `json:"held"`            // frames held back: sending was stuck
	HeldDropped    uint64 `json:"held_dropped"`    // frames dropped instead of held
	NoFrames       uint64 `json:"no_frames"`       // times that the pool was empty
	RingErrors     uint64 `json:"ring_errors"`     // broken rules of a ring
	WakeErrors     uint64 `json:"wake_errors"`     // failed fill ring wake-ups
	TxBatches      uint64 `json:"tx_batches"`      // io_uring submissions
	TxSends        uint64 `json:"tx_sends"`        // sends in them
	TxSlots        uint64 `json:"tx_slots"`        // slots in these
	TxBytes        uint64 `json:"tx_bytes"`        // taken by the kernel
	TxPostponed    uint64 `json:"tx_postponed"`    // slots that waited for their peer
	TxDropped      uint64 `json:"tx_dropped"`      // slots for unregistered sockets
	TxFailed       uint64 `json:"tx_failed"`       // connections given up in sending
	Unsteered      uint64 `json:"unsteered"`       // connections for which steering had no room
	Conns          uint64 `json:"conns"`           // registered now
}

const statFields = unsafe.Sizeof(Stats{}) / 8

func (s *Stats) fields() *[statFields]uint64 { return (*[statFields]uint64)(unsafe.Pointer(s)) }

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
	for i, v := range r.stats.fields() {
		atomic.StoreUint64(&r.published.fields()[i], v)
	}
}

// add sums counters.
func (s *Stats) add(o *Stats) {
	for i := range s.fields() {
		s.fields()[i] += o.fields()[i]
	}
}

// QueueStatus describes the AF_XDP socket on one NIC queue.
type QueueStatus struct {
	Queue int    `json:"queue"`
	Mode  string `json:"mode"` // "zero-copy" or "copy"
}

// PoolStatus describes the pool behind a port.
type PoolStatus struct {
	Path       string `json:"path"`
	Backing    string `json:"backing"`
	Durability string `json:"durability"`
	FrameSize  int    `json:"frame_size"`
	Frames     uint32 `json:"frames"`
	Free       int    `json:"free"`
}

// Status describes a port, for people and for `pastectl status`.
type Status struct {
	NIC      string            `json:"nic"`
	PID      int               `json:"pid"`
	XDP      string            `json:"xdp"`      // "native" or "generic"
	Attached string            `json:"attached"` // "pinned" or "process": how long the NIC stays attached
	Ports    []uint16          `json:"ports"`
	Queues   []QueueStatus     `json:"queues"`
	Pool     PoolStatus        `json:"pool"`
	Stats    Stats             `json:"stats"`
	Steer    map[string]uint64 `json:"steer"`
	Tickets  map[string]uint64 `json:"tickets"`
}

// Status may be called from any goroutine until Close.
func (p *Port) Status() Status {
	s := Status{
		NIC: p.opts.NIC, PID: os.Getpid(),
		Pool: PoolStatus{
			Path: p.opts.Pool.Path(), Backing: p.opts.Pool.Backing().String(), Durability: p.opts.Pool.Backing().Durability(),
			FrameSize: p.opts.Pool.FrameSize(), Frames: p.opts.Pool.Frames(), Free: p.opts.Pool.Free(),
		},
		Ports: []uint16{}, Queues: []QueueStatus{}, Steer: map[string]uint64{}, Tickets: map[string]uint64{},
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || !p.opened {
		return s
	}
	s.Ports = append(s.Ports, p.ports...)
	for q, sock := range p.socks {
		s.Queues = append(s.Queues, QueueStatus{Queue: q, Mode: sock.BoundMode()})
	}
	for _, r := range p.rings {
		rs := r.Stats()
		s.Stats.add(&rs)
		if counters, err := r.tk.Counters(); err == nil {
			for name, v := range counters {
				s.Tickets[name] += v
			}
		}
	}
	if p.steer != nil {
		info := p.steer.Info()
		s.XDP, s.Attached = info.Mode.String(), "process"
		if info.Pinned {
			s.Attached = "pinned"
		}
		if counters, err := p.steer.Counters(); err == nil {
			s.Steer = counters
		}
	}
	return s
}
