package contender

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// makeStatic moves the replies out of the Go heap, as the kernel reads them at
// its own time.
func (s *uringServer) makeStatic() (err error) {
	all := []*[]byte{&s.replies.get, &s.replies.head, &s.replies.stored, &s.replies.proceed}
	n := 0
	for _, r := range all {
		n += len(*r)
	}
	if s.static, err = unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		return fmt.Errorf("map replies: %w", err)
	}
	at := 0
	for _, r := range all {
		k := copy(s.static[at:], *r)
		*r = s.static[at : at+k : at+k]
		at += k
	}
	return nil
}

func (s *uringServer) free() {
	if s.ring != nil {
		_ = s.ring.Close() // before the memory that it was given
	}
	for _, c := range s.conns {
		if c != nil {
			_ = unix.Close(c.fd)
			c.pin.Unpin()
		}
	}
	for _, c := range s.orphans {
		c.pin.Unpin()
	}
	if s.static != nil {
		_ = unix.Munmap(s.static)
	}
}

func (s *uringServer) provide(bid uint16, frame uint32) {
	b := s.pool.Frame(frame)
	s.frame[bid] = frame
	s.bufs.Add(unsafe.Pointer(&b[0]), uint32(len(b)), bid)
}

// refill puts fresh frames in the place of those that were kept.
func (s *uringServer) refill() {
	for len(s.missing) > 0 {
		if len(s.fresh) == 0 {
			s.fresh = s.fresh[:cap(s.fresh)]
			if len(s.fresh) == 0 {
				s.fresh = make([]uint32, 256)
			}
			s.fresh = s.fresh[:s.pool.Alloc(s.fresh)]
			if len(s.fresh) == 0 && (s.store.pool == nil || s.store.halve() != nil) {
				break // fewer buffers until bodies have been completed
			}
			continue
		}
		n := len(s.missing) - 1
		s.provide(s.missing[n], s.fresh[len(s.fresh)-1])
		s.missing, s.fresh = s.missing[:n], s.fresh[:len(s.fresh)-1]
	}
	s.bufs.Advance()
}
