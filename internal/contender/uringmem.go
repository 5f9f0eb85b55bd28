package contender

import (
	"errors"
	"fmt"
	"math/bits"
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
	if s.warm != nil {
		_ = unix.Munmap(s.warm)
	}
	if s.static != nil {
		_ = unix.Munmap(s.static)
	}
}

// Buffers that the kernel receives into: either frames of the pool, which are
// kept when they hold a body, or, for messages that fit no frame, memory of their
// own from which bodies are copied into the log. Both are few, so that they stay
// within the caches.
const (
	frameBuffers = 1024
	warmBuffers  = 16
	warmLeast    = 64 << 10 // bytes
)

func (s *uringServer) makeBuffers() (err error) {
	n := min(frameBuffers, 1<<(bits.Len(uint(s.pool.Free()/4))-1))
	if s.MessageBytes+headerRoom > s.pool.FrameSize() {
		n, s.bufLen = warmBuffers, s.Fitting(warmLeast)
		s.warm, err = unix.Mmap(-1, 0, n*s.bufLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
		if err != nil {
			return fmt.Errorf("map %d bytes to receive into: %w", n*s.bufLen, err)
		}
	}
	if n < 1 {
		return errors.New("pool too small to receive into")
	}
	if s.bufs, err = s.ring.RegisterBufRing(0, uint32(n)); err != nil {
		return err
	}
	s.frame = make([]uint32, n)
	for i := range s.frame {
		if s.warm != nil {
			s.provideWarm(uint16(i))
		} else {
			s.missing = append(s.missing, uint16(i))
		}
	}
	s.refill()
	return nil
}

// take is a buffer that the kernel has filled.
func (s *uringServer) take(bid uint16) []byte {
	if s.warm != nil {
		return s.warm[int(bid)*s.bufLen:][:s.bufLen]
	}
	s.cur, s.kept = s.frame[bid], false
	b := s.pool.Frame(s.cur)
	s.base = uintptr(unsafe.Pointer(&b[0]))
	return b
}

// giveBack lets the kernel receive into a buffer again, or into another frame if this
// one was kept.
func (s *uringServer) giveBack(bid uint16) {
	switch {
	case s.warm != nil:
		s.provideWarm(bid)
	case s.kept:
		s.spent = append(s.spent, s.cur)
		s.missing = append(s.missing, bid)
	default:
		s.provide(bid, s.cur)
	}
}

func (s *uringServer) provideWarm(bid uint16) {
	s.bufs.Add(unsafe.Pointer(&s.warm[int(bid)*s.bufLen]), uint32(s.bufLen), bid)
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
