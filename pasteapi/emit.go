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
