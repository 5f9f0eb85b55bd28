package contender

import (
	"runtime"
	"unsafe"

	"github.com/pastenet/paste/internal/uring"
	"github.com/pastenet/paste/pmem"
	"golang.org/x/sys/unix"
)

// uringConn is one connection of a uringServer.
type uringConn struct {
	session
	srv     *uringServer
	fd      int
	gen     uint32
	frags   []pmem.Fragment // of an unfinished body, each with a reference
	body    []byte          // the same, if it is copied
	quick   []byte          // one reply in static memory, to be sent if unsent is set
	unsent  bool
	last    []byte // the quick reply that went to the kernel last
	out     []byte // replies that wait for their turn
	sending []byte // with the kernel, pinned
	pin     runtime.Pinner
	pending bool // in srv.dirty
	eof     bool
}

func (c *uringConn) userData(op uint64) uint64 {
	return op<<62 | uint64(c.gen)<<32 | uint64(uint32(c.fd))
}

// piece implements sink: the frame that the kernel received into becomes part of
// the record.
func (c *uringConn) piece(p []byte, last bool) error {
	s := c.srv
	if s.store.pool == nil {
		return nil
	}
	if s.warm != nil {
		return s.store.appendPiece(&c.body, p, last)
	}
	if len(p) > 0 {
		s.kept = true
		c.frags = append(c.frags, pmem.Fragment{Frame: s.cur,
			Off: uint16(uintptr(unsafe.Pointer(&p[0])) - s.base), Len: uint16(len(p))})
	}
	if !last {
		if len(p) > 0 {
			s.pool.Ref(s.cur)
		}
		return nil
	}
	err := s.store.appendFrames(c.frags)
	// The references of the earlier parts; that of this one is s.kept.
	n := len(c.frags)
	if len(p) > 0 {
		n--
	}
	for _, f := range c.frags[:n] {
		s.spent = append(s.spent, f.Frame)
	}
	c.frags = c.frags[:0]
	return err
}

// reply implements sink.
func (c *uringConn) reply(b []byte) {
	s := c.srv
	at := uintptr(unsafe.Pointer(&b[0])) - uintptr(unsafe.Pointer(&s.static[0]))
	switch {
	case at < uintptr(len(s.static)) && !c.unsent && len(c.out) == 0 && c.sending == nil:
		c.quick, c.unsent = b, true
	case c.unsent:
		c.unsent = false
		c.out = append(append(c.out, c.quick...), b...)
	default:
		c.out = append(c.out, b...)
	}
	s.mark(c)
}

func (s *uringServer) mark(c *uringConn) {
	if !c.pending {
		c.pending = true
		s.dirty = append(s.dirty, c)
	}
}

// flush queues what is to be sent. There is never more than one send of a
// connection that could be delayed, so replies keep their order.
func (s *uringServer) flush(c *uringConn) error {
	if s.conns[c.fd] != c || c.sending != nil {
		return nil
	}
	ending := c.close || c.eof
	if c.unsent && ending {
		// Its completion is wanted.
		c.unsent = false
		c.out = append(c.out, c.quick...)
	}
	if !c.unsent && len(c.out) == 0 {
		if ending {
			s.drop(c)
		}
		return nil
	}
	if len(c.out) > maxUnsent+s.ResponseBytes {
		s.drop(c)
		return nil
	}
	e, err := s.sqe()
	if err != nil {
		return err
	}
	if c.unsent {
		// With WAITALL a partial send counts as a failure and is reported;
		// success is silent.
		c.unsent, c.last = false, c.quick
		e.Send(c.fd, unsafe.Pointer(&c.quick[0]), uint32(len(c.quick)), unix.MSG_DONTWAIT|unix.MSG_WAITALL|unix.MSG_NOSIGNAL)
		e.SetFlags(uring.FlagCQESkip)
		e.SetUserData(c.userData(opQuick))
		return nil
	}
	c.sending, c.out = c.out, nil
	c.pin.Pin(&c.sending[0])
	e.Send(c.fd, unsafe.Pointer(&c.sending[0]), uint32(len(c.sending)), unix.MSG_WAITALL|unix.MSG_NOSIGNAL)
	e.SetUserData(c.userData(opSend))
	return nil
}

func (s *uringServer) drop(c *uringConn) {
	if s.conns[c.fd] != c {
		return
	}
	s.conns[c.fd] = nil
	if c.sending != nil {
		s.orphans[c.userData(opSend)] = c
	}
	for _, f := range c.frags {
		s.spent = append(s.spent, f.Frame)
	}
	c.frags = nil
	// Operations in flight hold the socket open beyond close.
	s.extra += 2
	_ = unix.Shutdown(c.fd, unix.SHUT_RDWR)
	_ = unix.Close(c.fd)
	if s.deaf {
		s.deaf = s.accept() != nil
	}
}
