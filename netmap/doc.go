// Package netmap opens netmap's ports of whole frames on a stock kernel: the queues
// of a NIC by AF_XDP, the host's rings beside them, pipes. Package pasteapi has
// PASTE's ports, whose slots belong to connections of the kernel's TCP.
//
// # Use
//
//	port, err := netmap.Open(ctx, "netmap:eth0", netmap.Options{})
//	for {
//		if _, err := port.Poll(netmap.In, -1); err != nil { … }
//		for i := range port.NumRX() {
//			ring := port.RX(i)
//			for ; !ring.Empty(); ring.Head = ring.Next(ring.Head) {
//				slot := ring.Slot(ring.Head)
//				use(ring.Buf(slot)[:slot.Len])
//			}
//			ring.Cur = ring.Head
//		}
//	}
//
// A port has a ring, in each direction, for every queue of its NIC, and one of the
// host's behind them where the name asks for it. The program has the slots from Head
// up to Tail: received frames, or room for frames to send. It advances Head past what
// it is done with, and Cur as far, or farther if it wants to be woken for more only.
// [Port.RxSync], [Port.TxSync] and [Port.Poll] are netmap's two ioctls and poll.
//
// While a port receives by a queue, the kernel sees none of its frames: no ARP, no
// ssh. [Port.Stats] count what neither side got. A program that wants the kernel to
// go on, a firewall for example, opens the host's rings as well ("netmap:eth0*") and
// moves frames between them: what is written to the host's TX ring comes in on the NIC,
// and what the kernel sends by the NIC is in the host's RX ring. Buffers are
// exchanged, not copied: swap BufIdx of the two slots and set NS_BUF_CHANGED.
//
// Whatever happens to the process, the NIC is afterwards as it was before: program
// and sockets go with their descriptors.
//
// # Netmap names
//
//	upstream                                    here
//	nmport_open("netmap:eth0-1/R@conf:slots=N") Open(ctx, the same, Options{})
//	nmport_close                                Port.Close
//	NETMAP_IF(mem, nr_offset)                   Memory.Bytes()[Port.IfOffset():]
//	NETMAP_RXRING, TXRING(nifp, i)              Port.RX(i), Port.TX(i): the open ones, from 0 on
//	struct netmap_ring, netmap_slot             Ring, Slot
//	NETMAP_BUF(ring, idx)                       Ring.Buf(slot), Memory.Buf(idx)
//	nm_ring_next, nm_ring_space, nm_ring_empty  Ring.Next, Space, Empty
//	ioctl NIOCTXSYNC, NIOCRXSYNC                Port.TxSync, RxSync
//	poll(fd, POLLIN | POLLOUT, ms)              Port.Poll(In | Out, timeout); Port.Fd for others' loops
//	nr_memsize, nr_mem_id                       len(Memory.Bytes()), Memory.ID
//	nr_extra_bufs, ni_bufs_head                 Options.ExtraBufs, or Memory.Alloc
//	…@extmem:file=F                             the same; PoolMemory, MemoryOver
//	NR_NO_TX_POLL, NR_DO_RX_POLL                portspec.NoTxPoll, DoRxPoll in the Spec of OpenSpec
//	NS_BUF_CHANGED, NS_MOREFRAG, NS_REPORT      the same
//	NS_INDIRECT, NS_FORWARD                     refused, ErrFrame
//	NR_TIMESTAMP                                the same
//	POLLERR after a broken rule                 ErrRingCorrupt, a *RingError that says which
//
// Memory is laid out as upstream does it: rings with a header of 256 bytes and slots
// of 16, found by offsets from the struct netmap_if, in one region with the buffers,
// which another process can map (Memory.Segments). A frame begins where its buffer
// does. Of a buffer's bytes the last 256 can hold no frame: AF_XDP wants them.
//
// # Concurrency
//
// A port belongs to one goroutine at a time. For several threads open one for each
// queue ("netmap:eth0-0", "netmap:eth0-1", …): they share nothing while they sync.
package netmap
