// Package pasteapi is PASTE's programming interface: TCP connections of the
// kernel whose payload arrives in packet buffers that the application owns, and
// leaves from them, a batch at a time and over any number of connections.
//
// The kernel keeps everything that makes TCP: the application calls socket,
// bind, listen, accept and connect, or uses package net, and the kernel does
// handshakes, order, acknowledgement, retransmission and congestion control.
// Only data moves in another way: through rings of slots, in netmap's memory
// layout, that name buffers of a pool (package pmem). How that works is drawn
// in docs/architecture.md.
//
// # Use
//
// Open a [Port] on a NIC with a pool, [Port.Steer] the TCP ports, and
// [Ring.Register] each connected socket. Then call [Ring.Poll] in a loop:
//
//   - It sends the slots that were put into the TX ring and waits for received
//     ones. One call serves all connections of the ring.
//   - [Ring.Segments] goes over what was received: a [Segment] is the payload of
//     one TCP segment, or the end of a connection. Those of a connection are in
//     order, and together within a batch.
//   - The buffer of a segment goes back to the NIC at the next sync. To keep a
//     payload, [Segment.Keep] exchanges its buffer for a free one: the caller then
//     owns it, and may put it into the pool's log without copying.
//   - Who knows how many bytes come next says so ([Ring.Expect]): much payload then
//     comes as few long segments.
//   - When [Segment.Closed] says so, nothing follows on that connection, and
//     [Segment.Cause] says why. The socket is the application's to unregister and
//     close; it may still send.
//   - [Segment.Reply] and [Ring.Send] copy bytes into TX slots; [Segment.Forward]
//     sends a received payload from where it lies.
//
// # Slots
//
// Under this are netmap's rings, for programs that come from there and for all
// that the above does not have:
//
//   - The application owns the slots from Head up to Tail. Head and Cur are
//     advanced past what is done with.
//   - An RX slot is a payload, [NetmapRing.Payload], of the connection [Slot.Fd]; or,
//     when Len is Doff, the close notice.
//   - To send, fill the slot at TX's Head ([Slot.SetFd], [Slot.SetDoff], Len),
//     write the payload into its buffer from Doff on, and advance Head and Cur.
//     Or name another frame of the pool (BufIdx, and NS_BUF_CHANGED), to send a
//     payload from where it lies. The caller gives one of its references of that
//     frame to the ring, and gets the ring's of the buffer that it took out. The
//     frame stays in the slot when it is sent: one that must not change has to
//     be taken out again before the slot is written to.
//
// A socket that is never registered works as ever on a port that is steered.
// One that is registered must not be read with read(2) any more; write(2) may
// be used, but not while TX slots of the connection are on their way.
//
// The interface works without a NIC, too (Options.NIC is ""), over loopback,
// and for peers that come in by another interface: payload is then copied into
// the buffers, or read. Stats tell how much came which way.
//
// # Datagrams
//
// A UDP socket that is bound or connected registers in the same way. One datagram is
// one slot, NS_DATAGRAM, and its headers lie before its payload: Doff spans Ethernet, IP and
// UDP. They are made up, as the kernel has taken those of the wire: addresses,
// ports and lengths are right. [Segment.Peer] and [Segment.Local] read them. In a TX
// slot they say where the datagram goes, and from which address where the socket is
// bound to all of them ([NetmapRing.SetAddrs], [Ring.SendTo]); [Segment.Reply] and
// [Segment.Forward] answer. On a connected socket a slot may be without headers. What does
// not fit a buffer is cut, NS_TRUNCATED. That a datagram could not be delivered
// is told by a slot, too ([Segment.Err]). What a full socket does not take waits, 512 datagrams for
// each socket; more are dropped and counted. Datagrams are read from their sockets,
// many in one system call, on every kind of NIC.
//
// # Netmap and PASTE names
//
//	upstream                                       here
//	nmport_prepare("pst:0@conf:rings=N", …),       Open(ctx, Options{NIC, Pool, Rings: N})
//	  nmport_open_desc                             or of what Named makes of the name
//	…@extmem:file=F                                pmem.OpenOrCreate(F, …), Options.Pool
//	nr_extra_bufs, ni_bufs_head                    pmem.Pool.Alloc; Ring.Keep
//	pst:0-i                                        Port.Ring(i)
//	NETMAP_REQ_PST_ATTACH, PST_DETACH              Options.NIC; Port.AttachNIC, DetachNIC
//	NETMAP_REQ_PST_FD_REG {fd}                     Ring.Register(fd), Ring.RegisterConn(conn)
//	EINVAL, EBUSY, ENOMEM of it                    ErrNotConnected or ErrNotSocket, ErrRegistered, ErrTooManyConns
//	close(fd)                                      Ring.Unregister(fd), then close; Ring.CloseAfterSend(fd)
//	struct netmap_ring, NETMAP_RXRING, TXRING      NetmapRing, Ring.RX(), Ring.TX()
//	ring->head, cur, tail, num_slots               Head, Cur, Tail, NumSlots
//	struct netmap_slot: buf_idx, len, flags, ptr   Slot: BufIdx, Len, Flags, Ptr
//	nm_pst_getfd, nm_pst_setfd                     Slot.Fd, Slot.SetFd
//	nm_pst_getdoff, nm_pst_setdoff                 Slot.Doff, Slot.SetDoff
//	nm_ring_next, nm_ring_space, nm_ring_empty     NetmapRing.Next, Space, Empty
//	NETMAP_BUF(ring, idx)                          NetmapRing.Buf(slot)
//	NETMAP_BUF_OFFSET(ring, slot) + doff,          NetmapRing.Payload(slot)
//	  len - doff
//	NS_BUF_CHANGED, …                              NS_BUF_CHANGED, …
//	poll(fd, POLLIN | POLLOUT, ms)                 Ring.Poll(timeout); 0 does not wait, negative has no limit
//	the port's descriptor in poll, select, epoll    Ring.Fd(), then Poll(0)
//	ioctl NIOCTXSYNC, NIOCRXSYNC                   Ring.TxSync, Ring.RxSync
//	other descriptors in the same poll             Ring.Watch(fd), Ring.Ready()
//	POLLERR after a broken rule                    ErrRingCorrupt, a *RingError that says which
//
// Rings and slots have upstream's binary layout (a header of 256 bytes, slots of
// 16), so C code written for them can be handed the memory. Buffer indices are
// frame numbers of the pool; 0 and 1 are never given out, as in netmap.
//
// # Differences from upstream
//
// A socket that is full, or dead, holds up nobody: what it does not take leaves
// the ring and is sent when there is room (see TxSync). RST, errors and a FIN
// that came with data are told. Traffic that is not steered never passes through
// the rings. Whatever the application does to a ring is checked before it is
// used; a broken rule gives an error and a repaired ring.
//
// # Concurrency
//
// A Ring belongs to one goroutine at a time; with more than one CPU, use one ring
// for each, on a locked thread if CPUs are to be fixed. A connection is
// registered to one ring, best the one that its NIC queue belongs to (queue j:
// ring j modulo Rings); on another one it is copied. With a listener
// for each ring, [Ring.PlaceConnections] sees to that. From any
// goroutine may be called: everything of Port but Close while a ring is in use,
// and Wake and Stats of a Ring.
//
// # Errors
//
// Those on which a program decides are the package's variables, and are wrapped
// in a sentence that names the thing. What concerns one connection (a reset, a
// peer that does not read) arrives in order as its close notice, never as an
// error of Poll. Open also returns errors of packages bpf (ErrNoSuchNIC,
// ErrNoPrivilege, ErrKernelTooOld, …) and xsk.
package pasteapi
