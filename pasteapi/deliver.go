package pasteapi

import (
	"unsafe"

	"github.com/pastenet/paste/bpf"
	"golang.org/x/sys/unix"
)

// drain reads what TCP delivered since the last look. Like readDeliveries it
// reports whether that is all.
func (r *Ring) drain() bool {
	all := r.readDeliveries()
	lost := r.tk.Overflows()
	if lost == r.lost {
		return all
	}
	// What a connection got before its first lost record may have come since
	// the look above, and comes first. Afterwards it gets no more records.
	conns := r.overflowed()
	if !r.readDeliveries() {
		return false // the next drain tries again
	}
	r.lost = lost
	for _, c := range conns {
		r.overflow(c)
	}
	return true
}

// readDeliveries reports whether it has seen everything: a record may be in
// the making, and buffers to copy into may be short.
func (r *Ring) readDeliveries() bool {
	for r.haveFrames() {
		d := r.tk.Next()
		if d == nil {
			break
		}
		if d.Ticket != 0 {
			r.delivered(d)
		} else {
			r.stray(d)
		}
	}
	r.tk.Release()
	return !r.tk.Pending()
}

// delivered takes the frames that a claimed ticket stands for. The kernel may
// have accepted only some of the bytes: those before d.Seq it had already.
func (r *Ring) delivered(d *bpf.Delivery) {
	slot := uint16(d.Ticket)
	t := &r.tickets.info[slot]
	c := t.conn
	if c == nil {
		r.dropTicket(slot)
		return
	}
	r.sync(c, d)
	if gap := int32(d.Seq - c.next); gap > 0 {
		// Bytes in between came another way and wait in the socket.
		r.push(c, item{kind: itemStray, len: uint32(gap)})
		c.next = d.Seq
	}
	end := d.Seq + d.Len
	seq := t.seq
	for _, p := range t.parts {
		skip := max(int32(c.next-seq), 0)
		n := min(int32(p.len), int32(end-seq)) - skip
		if n > 0 {
			off := r.reachable(p.frame, int(p.off)+int(skip), int(n))
			r.push(c, item{kind: itemData, frame: p.frame, off: uint16(off), len: uint32(n)})
			c.next += uint32(n)
			r.stats.Delivered++
			r.stats.DeliveredBytes += uint64(n)
		} else {
			r.giveFrame(p.frame)
		}
		seq += uint32(p.len)
	}
	r.tickets.retire(slot)
	r.reclaimPassed(c)
	if d.Flags&bpf.DeliveryFin != 0 {
		r.end(c, nil)
	}
	r.activate(c)
}

// reachable returns the offset of n bytes that lie at off in a frame, after
// moving them to where a slot can point if that is too far back: a
// retransmission may have reached back by almost a segment.
func (r *Ring) reachable(frame uint32, off, n int) int {
	if off <= MaxDoff {
		return off
	}
	f := r.frame(frame)
	copy(f[strayDoff:], f[off:off+n])
	if r.durable {
		// They have been acknowledged; the fence comes before the next ones are.
		r.pool.Flush(r.pool.Offset(frame, strayDoff), uint64(n))
	}
	return strayDoff
}

// dropTicket ends a ticket and gives its frames back to the circulation.
func (r *Ring) dropTicket(slot uint16) {
	for _, p := range r.tickets.info[slot].parts {
		r.giveFrame(p.frame)
	}
	r.tickets.retire(slot)
}

// stray takes bytes that came without a ticket: those behind the record are
// copied into a frame, others are noted, to be read from the socket when it is
// their turn.
func (r *Ring) stray(d *bpf.Delivery) {
	c := r.byCookie[d.Cookie]
	if c == nil {
		return // unregistered meanwhile
	}
	r.sync(c, d)
	gap := int32(d.Seq - c.next)
	if gap > 0 {
		r.push(c, item{kind: itemStray, len: uint32(gap)})
		gap = 0
	}
	skip := min(uint32(-gap), d.Len)
	switch {
	case d.Len == 0:
	case d.Flags&bpf.DeliveryData == 0:
		r.push(c, item{kind: itemStray, skip: skip, len: d.Len - skip})
	default:
		for data := d.Data()[skip:]; len(data) > 0; {
			f, ok := r.takeFrame()
			if !ok {
				// Cannot be: drain looked whether there are enough.
				r.end(c, ErrNoBuffers)
				return
			}
			n := copy(r.frame(f)[strayDoff:], data)
			r.push(c, item{kind: itemData, flags: NS_COPIED, frame: f, off: strayDoff, len: uint32(n)})
			data = data[n:]
		}
		r.stats.CopiedBytes += uint64(d.Len - skip)
	}
	if d.Len > 0 {
		r.stats.Stray++
		r.stats.StrayBytes += uint64(d.Len - skip)
	}
	if end := d.Seq + d.Len; int32(end-c.next) > 0 {
		c.next = end
	}
	r.reclaimPassed(c)
	if d.Flags&bpf.DeliveryFin != 0 {
		r.end(c, nil)
	}
	r.activate(c)
}

// sync learns where a connection's stream stands from its first delivery.
func (r *Ring) sync(c *conn, d *bpf.Delivery) {
	if !c.synced {
		c.synced = true
		c.next = d.Consumed
	}
}

// reclaimPassed takes back the frames of duplicates: the kernel dropped them,
// as all of their bytes were there already.
func (r *Ring) reclaimPassed(c *conn) {
	for slot := c.firstTicket; slot != none; slot = c.firstTicket {
		t := &r.tickets.info[slot]
		if int32(t.seq+t.length-c.next) > 0 || !r.tickets.reclaim(slot) {
			return
		}
		r.stats.Reclaimed++
		r.dropTicket(slot)
	}
}

// sweep takes back frames that the kernel has kept or dropped silently: bad
// checksum, out of the window, a hole that was never filled. Should TCP accept
// one of them later, its bytes come by the copy path. It runs about once a
// second.
func (r *Ring) sweep() {
	t := r.tickets
	t.epoch++
	for slot := range t.info {
		i := &t.info[slot]
		if i.busy && t.epoch-i.epoch > 2 && t.reclaim(uint16(slot)) {
			r.stats.Reclaimed++
			r.dropTicket(uint16(slot))
		}
	}
	if r.blocked > 0 {
		// A send that failed for want of memory is followed by no event.
		for _, c := range r.byCookie {
			switch {
			case len(c.queue) == 0:
			case c.gone():
				// Closed without Unregister: nothing of it may reach the socket
				// that has its number now.
				r.sendFailed(c, unix.EBADF)
			default:
				r.sendQueued(c)
			}
		}
	}
}

// overflowed finds the connections that lost deliveries because the ring of
// deliveries was full.
func (r *Ring) overflowed() []*conn {
	var conns []*conn
	for _, c := range r.byCookie {
		if _, yes := r.tk.Overflowed(c.cookie); yes && !c.copyOnly {
			conns = append(conns, c)
		}
	}
	return conns
}

// overflow goes on without deliveries: from the first lost one on, all bytes of
// the connection stay in the socket, so they are read there.
func (r *Ring) overflow(c *conn) {
	c.copyOnly = true
	r.stats.Overflowed++
	ev := unix.EpollEvent{Events: connEvents | unix.EPOLLIN, Fd: int32(c.fd), Pad: watchConn}
	r.stats.Syscalls++
	_ = unix.EpollCtl(r.epoll, unix.EPOLL_CTL_MOD, c.fd, &ev)
	if o, _ := r.tk.Overflowed(c.cookie); c.synced && int32(c.next-o.First) > 0 {
		r.push(c, item{kind: itemStray, skip: c.next - o.First})
	}
	r.push(c, item{kind: itemAll})
	r.activate(c)
}

// repeats says whether what recv returned from a connection without deliveries
// may contain bytes twice: a retransmission reached back, and nothing says
// where.
func (r *Ring) repeats(c *conn) bool {
	if !c.copyOnly {
		return false
	}
	o, _ := r.tk.Overflowed(c.cookie)
	return o.Overlaps > 0
}

// end queues the close notice behind everything received before.
func (r *Ring) end(c *conn, cause error) {
	if c.eof {
		return
	}
	c.eof = true
	c.cause = cause
	r.push(c, item{kind: itemClose})
	r.activate(c)
}

// recv reads from a socket without blocking.
func (r *Ring) recv(fd int, b []byte, flags int) (int, unix.Errno) {
	r.stats.Syscalls++
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])),
		uintptr(len(b)), uintptr(unix.MSG_DONTWAIT|flags), 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(n), 0
}

// recvv reads into several buffers without blocking.
func (r *Ring) recvv(fd int, iov []unix.Iovec) (int, unix.Errno) {
	r.stats.Syscalls++
	msg := unix.Msghdr{Iov: &iov[0]}
	msg.SetIovlen(len(iov))
	n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT)
	if errno != 0 {
		return -1, errno
	}
	return int(n), 0
}

// peek looks whether a connection has ended. The look itself makes the verdict
// run over segments that were queued before registration. The result is false
// when it has ended but bytes may be ahead that cannot be read yet: look again.
func (r *Ring) peek(c *conn) (known bool) {
	var b [1]byte
	n, errno := r.recv(c.fd, b[:], unix.MSG_PEEK)
	// What the verdict has seen up to the end of stream is in the ring by now.
	all := r.drain()
	if errno == unix.EAGAIN || n > 0 {
		return all
	}
	if errno != 0 {
		c.cause = errno // the socket tells it once
	}
	if all {
		r.end(c, c.cause)
	}
	return all
}
