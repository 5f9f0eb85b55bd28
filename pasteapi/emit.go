package pasteapi

import "golang.org/x/sys/unix"

// strayDoff is where copied payloads start in their buffer, bytes: a cache line
// boundary, as flushing works by the line.
const strayDoff = 64

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
			s.Flags = NS_BUF_CHANGED | i.flags
			v.tail = next
			c.pop()
		case itemClose:
			s := v.ring.slot(v.tail)
			s.set(s.BufIdx, c.fd, 0, 0)
			s.Flags = 0
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

// strayBatch is how many buffers one system call fills from a socket at most.
const strayBatch = 32

// emitStray reads waiting bytes into slots, as many as one system call fills.
// It returns false when the socket has none at the moment, and the connection
// has to wait.
func (r *Ring) emitStray(c *conn, i *item) bool {
	if i.skip > 0 {
		return r.skipStray(c, i)
	}
	room := 1<<r.shift - strayDoff
	want := strayBatch * room
	if i.kind == itemStray {
		if i.len == 0 {
			c.pop()
			return true
		}
		want = min(want, int(i.len))
	}
	v := &r.rxView
	slots := min((want+room-1)/room, int(v.distance(v.next(v.tail), v.head)))
	var frames [strayBatch]uint32
	var iov [strayBatch]unix.Iovec
	n := 0
	for n < slots {
		f, ok := r.takeFrame()
		if !ok {
			break
		}
		frames[n] = f
		iov[n].Base = &r.frame(f)[strayDoff]
		iov[n].SetLen(min(room, want-n*room))
		n++
	}
	if n == 0 {
		r.stats.NoFrames++
		r.waiting = append(r.waiting, c)
		return false
	}
	got, errno := r.recvv(c.fd, iov[:n])
	if got > 0 && r.repeats(c) {
		got, errno = -1, unix.EPROTO
	}
	used := 0
	for left := got; left > 0; used++ {
		length := min(room, left)
		left -= length
		s := v.ring.slot(v.tail)
		r.giveFrame(v.bufs[v.tail])
		v.bufs[v.tail] = frames[used]
		s.set(frames[used], c.fd, strayDoff, length)
		s.Flags = NS_BUF_CHANGED | NS_COPIED
		v.tail = v.next(v.tail)
	}
	for _, f := range frames[used:n] {
		r.giveFrame(f)
	}
	if i.kind == itemAll && got > 0 {
		// The others were counted when the verdict told of them.
		r.stats.Stray += uint64(used)
		r.stats.StrayBytes += uint64(got)
	}
	return r.afterStray(c, i, got, errno)
}

// skipStray throws bytes away that were received before.
func (r *Ring) skipStray(c *conn, i *item) bool {
	var b [4096]byte
	n, errno := r.recv(c.fd, b[:min(uint32(len(b)), i.skip)], 0)
	if n > 0 {
		i.skip -= uint32(n)
		if i.skip == 0 && i.len == 0 {
			c.pop()
		}
		return true
	}
	return r.afterStray(c, i, n, errno)
}

// afterStray accounts for what a read from the socket returned.
func (r *Ring) afterStray(c *conn, i *item, n int, errno unix.Errno) bool {
	switch {
	case n > 0:
		if i.kind == itemStray {
			if i.len -= uint32(n); i.len == 0 {
				c.pop()
			}
		}
	case errno == unix.EAGAIN && i.kind == itemAll:
		c.pop()
	case errno == unix.EAGAIN:
		r.waiting = append(r.waiting, c)
		return false
	default:
		// The connection was reset, and the kernel has thrown the rest away; or
		// it is given up, as its bytes cannot be told apart any more. What came
		// behind the gap is not given out.
		if errno != 0 && c.cause == nil {
			c.cause = errno
		}
		r.freeItems(c)
		c.eof = false
		r.end(c, c.cause)
	}
	return true
}
