package pasteapi

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// PlaceConnections has the kernel give each new connection to the listening
// socket of the ring that its NIC queue belongs to, so that the ring that
// accepts and registers it is the one that sees its frames. Without it the two
// differ for all but one of N connections, which are then copied or read. Any
// ring of the port may be asked.
//
// Listeners are in the order of the rings. They are bound to the same address
// with SO_REUSEPORT (all but the first before bind, the first before the second
// one is bound), and listen was called on them in this order: the kernel counts
// them so. Each ring should have a queue (see Queues), for one without gets no
// connections from the NIC then.
//
// It relies on the NIC to receive the segments of a connection on the queue of
// its SYN, as receive-side scaling does. Where they come by different queues
// nothing is lost but speed.
func (r *Ring) PlaceConnections(listeners ...int) error {
	if r.closed {
		return ErrClosed
	}
	if len(listeners) == 0 {
		return errors.New("place connections: no listening socket")
	}
	// What can be loaded is skb->queue_mapping. Drivers put the queue there,
	// counted from 1, and 0 stands for none (skb_record_rx_queue in
	// include/linux/skbuff.h). On a veth it is still the queue of the other end,
	// counted from 0, which is the one that the frame is received on.
	const loadQueue = 1<<32 - 0x1000 + 24 // SKF_AD_OFF + SKF_AD_QUEUE, include/uapi/linux/filter.h
	first, none := uint32(1), uint32(0)
	if r.veth {
		first, none = 0, 1<<32-1
	}
	n := uint32(len(listeners))
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: loadQueue},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 3, K: none},
		{Code: unix.BPF_ALU | unix.BPF_SUB | unix.BPF_K, K: first},
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: n},
		{Code: unix.BPF_RET | unix.BPF_A},
		{Code: unix.BPF_RET | unix.BPF_K, K: n}, // there is no such socket: the kernel takes one by a hash
	}
	err := unix.SetsockoptSockFprog(listeners[0], unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
		&unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]})
	if err != nil {
		return fmt.Errorf("place connections: %w", os.NewSyscallError("setsockopt SO_ATTACH_REUSEPORT_CBPF", err))
	}
	return nil
}
