package pasteapi

import (
	"fmt"
	"unsafe"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/xsk"
	"golang.org/x/sys/unix"
)

const (
	// harvestBatch is the most frames taken from one NIC queue in one sync.
	harvestBatch = 256
	// heldLimit bounds the frames that wait for a connection whose sending is
	// stuck. Beyond it frames are dropped, and TCP sends them again.
	heldLimit = 512
	// strayDoff is where copied payloads start in their buffer, bytes: a cache
	// line boundary, as flushing works by the line.
	strayDoff = 64
)

// heldFrame is a received frame that was not injected yet.
type heldFrame struct {
	frame uint32
	off   uint16 // of the Ethernet header in the frame
	len   uint16
}

// RxSync makes received payloads available in the RX ring, and returns how
// many slots the application owns there now. Slots before Head are given back
// to the port. It never blocks.
func (r *Ring) RxSync() (int, error) {
	if r.closed {
		return 0, ErrClosed
	}
	given, err := r.rxView.accept(r.pool)
	if err != nil {
		r.stats.RingErrors++
		return 0, err
	}
	r.rxView.head = r.rx.Head
	if given > 0 {
		r.rxFull = false
	}
	if err := r.receive(); err != nil {
		return 0, err
	}
	r.emit()
	return int(r.rxView.distance(r.rxView.head, r.rxView.tail)), nil
}

// receive moves frames from the NIC into TCP and notes what TCP accepted.
func (r *Ring) receive() error {
	if !r.rxFull {
		for _, s := range r.nics {
			r.harvest(s)
		}
	}
	if len(r.inj.batch) > 0 {
		if err := r.flush(); err != nil {
			return err
		}
	}
	for _, s := range r.nics {
		r.refill(s)
	}
	r.drain()
	return nil
}

// flush injects the batch.
func (r *Ring) flush() error {
	if r.durable {
		if err := r.pool.Fence(); err != nil {
			return fmt.Errorf("make received payload durable: %w", err)
		}
	}
	failed, err := r.inj.flush()
	r.stats.Syscalls++
	r.stats.InjectFailed += failed
	for _, f := range r.inj.unnamed {
		r.giveFrame(f)
	}
	r.inj.unnamed = r.inj.unnamed[:0]
	return err
}

// harvest takes received frames from a NIC queue and puts them into the
// injection batch, with a ticket when their connection is registered.
func (r *Ring) harvest(s *xsk.Socket) {
	n := s.Receive(r.scratch[:min(harvestBatch, r.inj.room())])
	if n == 0 {
		return
	}
	r.stats.Frames += uint64(n)
	for i := range r.scratch[:n] {
		d := &r.scratch[i]
		frame := uint32(d.Addr >> r.shift)
		at := d.Addr & (1<<r.shift - 1)
		r.inject(frame, uint16(at), uint16(d.Len))
	}
}

func (r *Ring) inject(frame uint32, at, length uint16) {
	f := r.frame(frame)[at:][:length]
	var seg segment
	if at < vnetHeaderSize || !seg.parse(f) {
		// The steering program lets nothing else through.
		r.stats.Malformed++
		r.giveFrame(frame)
		return
	}
	ticket := uint32(0)
	c := r.flows.find(&seg, f)
	if c != nil {
		if len(c.held) > 0 || c.queued > r.txLimit/4 {
			r.hold(c, heldFrame{frame, at, length})
			return
		}
		if r.durable {
			r.pool.Flush(r.pool.Offset(frame, int(at)+seg.payload), uint64(seg.end-seg.payload))
		}
		if !c.copyOnly {
			ticket = r.tickets.issue(c, frame, int(at)+seg.payload, seg.end-seg.payload, seg.seq)
		}
	}
	if ticket == 0 {
		r.stats.Unticketed++
		r.inj.unnamed = append(r.inj.unnamed, frame)
	}
	r.inj.add(f, &seg, ticket)
	r.stats.Injected++
}

// hold keeps a frame of a connection that does not take its replies. As it is
// not injected it is not acknowledged, so the peer slows down.
func (r *Ring) hold(c *conn, h heldFrame) {
	if len(c.held) >= heldLimit {
		r.stats.HeldDropped++
		r.giveFrame(h.frame)
		return
	}
	r.stats.Held++
	c.held = append(c.held, h)
}

// resume injects what was held back.
func (r *Ring) resume(c *conn) {
	held := c.held
	c.held = nil
	for _, h := range held {
		if r.inj.room() == 0 {
			if err := r.flush(); err != nil {
				c.held = append(c.held, h)
				continue
			}
		}
		r.inject(h.frame, h.off, h.len)
	}
}

func (r *Ring) freeHeld(c *conn) {
	for _, h := range c.held {
		r.giveFrame(h.frame)
	}
	c.held = nil
}

// refill posts free frames to a NIC queue.
func (r *Ring) refill(s *xsk.Socket) {
	want := s.FillFree()
	if want < 32 {
		return
	}
	if len(r.free) < want {
		var batch [256]uint32
		n := r.pool.Alloc(batch[:min(want-len(r.free), len(batch))])
		r.owned.addAll(batch[:n])
		r.free = append(r.free, batch[:n]...)
	}
	n := min(want, len(r.free))
	if n > 0 {
		rest := len(r.free) - n
		s.FillFrames(r.free[rest:])
		r.free = r.free[:rest]
	} else {
		r.stats.NoFrames++
	}
	if s.FillNeedsWakeup() {
		r.stats.Syscalls++
		if err := s.WakeRx(); err != nil {
			r.stats.WakeErrors++
		}
	}
}

// drain reads what TCP delivered since the last look.
func (r *Ring) drain() {
	for r.haveFrame() {
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
	if n := r.tk.Overflows(); n != r.lost {
		r.lost = n
		r.overflow()
	}
}

// delivered takes the frame that a claimed ticket stands for.
func (r *Ring) delivered(d *bpf.Delivery) {
	slot := uint16(d.Ticket)
	t := &r.tickets.info[slot]
	c, frame := t.conn, t.frame
	off, seq := uint32(t.off), t.seq
	r.tickets.retire(slot)
	if c == nil {
		r.giveFrame(frame)
		return
	}
	r.sync(c, d)
	skip := uint32(0)
	if gap := int32(d.Seq - c.next); gap < 0 {
		// A retransmission that reached back before what was delivered.
		skip = uint32(-gap)
	} else if gap > 0 {
		// Bytes in between came another way and wait in the socket.
		r.push(c, item{kind: itemStray, len: uint32(gap)})
	}
	if end := d.Seq + d.Len; int32(end-c.next) > 0 {
		r.push(c, item{kind: itemData, frame: frame, off: uint16(off + d.Seq - seq + skip), len: d.Len - skip})
		c.next = end
		r.stats.Delivered++
		r.stats.DeliveredBytes += uint64(d.Len - skip)
	} else {
		r.giveFrame(frame)
	}
	r.reclaimPassed(c)
	if d.Flags&bpf.DeliveryFin != 0 {
		r.end(c, nil)
	}
	r.activate(c)
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
				// Cannot be: drain looked, and a frame holds every record.
				r.end(c, ErrNoBuffers)
				return
			}
			n := copy(r.frame(f)[strayDoff:], data)
			r.push(c, item{kind: itemData, frame: f, off: strayDoff, len: uint32(n)})
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
		if int32(t.seq+uint32(t.length)-c.next) > 0 || !r.tickets.reclaim(slot) {
			return
		}
		r.stats.Reclaimed++
		r.giveFrame(t.frame)
		r.tickets.retire(slot)
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
			r.giveFrame(i.frame)
			t.retire(uint16(slot))
		}
	}
	if r.blocked > 0 {
		// A send that failed for want of memory is followed by no event.
		for _, c := range r.byCookie {
			if len(c.queue) > 0 {
				r.sendQueued(c)
			}
		}
	}
}

// overflow finds the connections that lost deliveries because the ring of
// deliveries was full. From the first lost one on, all of their bytes stay in
// the socket, so they are read there from now on.
func (r *Ring) overflow() {
	for _, c := range r.byCookie {
		if !c.copyOnly && r.tk.Overflowed(c.cookie) {
			c.copyOnly = true
			r.stats.Overflowed++
			ev := unix.EpollEvent{Events: connEvents | unix.EPOLLIN, Fd: int32(c.fd), Pad: watchConn}
			r.stats.Syscalls++
			_ = unix.EpollCtl(r.epoll, unix.EPOLL_CTL_MOD, c.fd, &ev)
			r.push(c, item{kind: itemAll})
			r.activate(c)
		}
	}
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

func (r *Ring) activate(c *conn) {
	if !c.active && c.pending() {
		c.active = true
		r.active = append(r.active, c)
	}
}

// emit fills the RX ring, connection by connection.
func (r *Ring) emit() {
	if len(r.waiting) > 0 {
		for _, c := range r.waiting {
			if c.fd >= 0 {
				r.activate(c)
			}
		}
		r.waiting = r.waiting[:0]
	}
	done := 0
	for _, c := range r.active {
		if !r.emitConn(c) {
			r.rxFull = true
			break
		}
		c.active = false
		done++
	}
	if done > 0 {
		n := copy(r.active, r.active[done:])
		clear(r.active[n:])
		r.active = r.active[:n]
	}
	r.rx.Tail = r.rxView.tail
}

// emitConn gives out what a connection has; false means that the ring is full.
func (r *Ring) emitConn(c *conn) bool {
	v := &r.rxView
	for c.pending() {
		next := v.next(v.tail)
		if next == v.head {
			return false
		}
		i := &c.items[c.first]
		switch i.kind {
		case itemData:
			s := v.ring.slot(v.tail)
			r.giveFrame(v.bufs[v.tail])
			v.bufs[v.tail] = i.frame
			s.set(i.frame, c.fd, int(i.off), int(i.len))
			s.Flags = NS_BUF_CHANGED
			v.tail = next
			c.pop()
		case itemClose:
			s := v.ring.slot(v.tail)
			s.set(s.BufIdx, c.fd, 0, 0)
			s.Flags = 0
			c.ended = true
			v.tail = next
			c.pop()
		default:
			if !r.emitStray(c, i) {
				return true
			}
		}
	}
	return true
}

// emitStray reads waiting bytes into one slot. It returns false when the
// socket has none at the moment, and the connection has to wait.
func (r *Ring) emitStray(c *conn, i *item) bool {
	v := &r.rxView
	f, ok := r.takeFrame()
	if !ok {
		r.stats.NoFrames++
		r.waiting = append(r.waiting, c)
		return false
	}
	buf := r.frame(f)[strayDoff:]
	switch {
	case i.skip > 0:
		buf = buf[:min(uint32(len(buf)), i.skip)]
	case i.kind == itemStray:
		buf = buf[:min(uint32(len(buf)), i.len)]
	}
	if len(buf) == 0 {
		r.giveFrame(f)
		c.pop()
		return true
	}
	n, errno := r.recv(c.fd, buf, 0)
	switch {
	case errno == unix.EAGAIN && i.kind == itemAll:
		r.giveFrame(f)
		c.pop()
	case errno == unix.EAGAIN:
		r.giveFrame(f)
		r.waiting = append(r.waiting, c)
		return false
	case errno != 0 || n == 0:
		// The connection was reset, and the kernel has thrown the rest away.
		r.giveFrame(f)
		c.pop()
		var cause error
		if errno != 0 {
			cause = errno
		}
		if !c.eof {
			r.end(c, cause)
		} else if c.cause == nil {
			c.cause = cause
		}
	case i.skip > 0:
		r.giveFrame(f)
		i.skip -= uint32(n)
		if i.skip == 0 && i.len == 0 {
			c.pop()
		}
	default:
		s := v.ring.slot(v.tail)
		r.giveFrame(v.bufs[v.tail])
		v.bufs[v.tail] = f
		s.set(f, c.fd, strayDoff, n)
		s.Flags = NS_BUF_CHANGED
		v.tail = v.next(v.tail)
		if i.kind == itemStray {
			if i.len -= uint32(n); i.len == 0 {
				c.pop()
			}
		}
	}
	return true
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

// peek looks whether a connection has ended. The look itself makes the verdict
// run over segments that were queued before registration.
func (r *Ring) peek(c *conn) {
	var b [1]byte
	n, errno := r.recv(c.fd, b[:], unix.MSG_PEEK)
	// What the verdict has seen up to the end of stream is in the ring by now.
	r.drain()
	switch {
	case errno == unix.EAGAIN || n > 0:
	case errno != 0:
		r.end(c, errno)
	default:
		r.end(c, nil)
	}
}
