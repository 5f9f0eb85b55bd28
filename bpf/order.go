package bpf

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Order keeps small segments, which the steering program lets pass, from
// overtaking large ones of the same connection, which go through user space. It
// is memory shared with the program (struct steer_order in steer.bpf.c). Its
// methods may be called from any goroutine until the Steer is closed.
//
// It is about speed only: a segment that overtakes another one is put back in
// its place by TCP, which takes it for a sign of loss, however.
type Order struct{ shared *steerSteerOrder }

// Order maps the memory and forgets what is in it, as only the application that
// receives needs it. It is called once, by that application.
func (s *Steer) Order() (*Order, error) {
	if s.order == nil {
		page := os.Getpagesize()
		size := (int(unsafe.Sizeof(steerSteerOrder{})) + page - 1) &^ (page - 1)
		b, err := unix.Mmap(s.maps.SteerFlows.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return nil, fmt.Errorf("interface %s: map the order of segments: %w", s.info.NIC, err)
		}
		s.order = b
	}
	o := &Order{(*steerSteerOrder)(unsafe.Pointer(&s.order[0]))}
	*o.shared = steerSteerOrder{}
	return o, nil
}

// Flow is an entry of Order: that of a connection and of those that share it.
type Flow uint16

// FlowOf returns the entry of a received segment: addrs are the source and
// destination address, ports the first four bytes of the TCP header, both as
// they stand in the packet.
func FlowOf(addrs, ports []byte) Flow {
	h := uint32(0)
	for ; len(addrs) >= 4; addrs = addrs[4:] {
		h = mix(h, binary.NativeEndian.Uint32(addrs))
	}
	return Flow(mix(h, binary.NativeEndian.Uint32(ports)) >> (32 - steerSteerLimitFLOW_BITS))
}

func mix(h, word uint32) uint32 { return (h ^ word) * 0x9e3779b1 }

// Injected notes that TCP has the segment that ends before sequence number end.
func (o *Order) Injected(f Flow, end uint32) {
	atomic.StoreUint32(&o.shared.Flows[f].Injected, end)
}

// Force has all segments of a flow steered, small ones too, until EndForce: nothing
// may pass by frames that are held. It is counted, for flows that share an entry.
func (o *Order) Force(f Flow) { atomic.AddUint32(&o.shared.Flows[f].Held, 1) }

// EndForce ends Force. It is called once for each call of that.
func (o *Order) EndForce(f Flow) { atomic.AddUint32(&o.shared.Flows[f].Held, ^uint32(0)) }

// ForceQueue does the same for everything that arrives at an RX queue, or ends it.
func (o *Order) ForceQueue(queue int, all bool) {
	v := uint32(0)
	if all {
		v = 1
	}
	atomic.StoreUint32(&o.shared.All[queue%len(o.shared.All)], v)
}
