package netmap

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// macTable remembers where addresses were last seen. It has a fixed size, so that
// nobody can make it grow; an address that has the place of another takes it.
type macTable struct {
	entries [1 << 12]macEntry
}

type macEntry struct {
	mac uint64
	at  *member
}

func (t *macTable) entry(mac uint64) *macEntry {
	h := mac * 0x9e3779b97f4a7c15
	return &t.entries[h>>52]
}

func (t *macTable) forget(m *member) {
	for i := range t.entries {
		if t.entries[i].at == m {
			t.entries[i] = macEntry{}
		}
	}
}

func macOf(b []byte) uint64 {
	return uint64(binary.BigEndian.Uint32(b))<<16 | uint64(binary.BigEndian.Uint16(b[4:]))
}

// turn takes in what all ports received, and sends it.
func (s *Switch) turn() (frames int, err error) {
	for i := 0; i < len(s.members); i++ {
		m := s.members[i]
		if i == 0 || s.members[i-1].port != m.port {
			if err := m.port.RxSync(); err != nil {
				s.lose(m.port, err)
				return frames + 1, nil
			}
		}
		n, err := s.pass(m)
		if err != nil {
			return frames, err
		}
		frames += n
	}
	return frames, s.push()
}

// push makes the log durable and sends what is in the TX rings.
func (s *Switch) push() error {
	if s.opts.Log != nil {
		if err := s.opts.Log.Commit(); err != nil {
			return fmt.Errorf("switch: %w", err)
		}
	}
	for _, m := range s.members {
		if !m.queued && !m.port.unsynced() {
			continue
		}
		m.queued = false
		// Frames that the NIC cannot send are counted there.
		if err := m.port.TxSync(); err != nil && !errors.Is(err, ErrFrame) {
			s.lose(m.port, err)
			break
		}
	}
	s.keep.release()
	return nil
}

// pass forwards what a port has received.
func (s *Switch) pass(m *member) (frames int, err error) {
	for k, r := range m.rx {
		head := r.n.Head
		for head != r.tail {
			end, pieces := r.frameAt(head)
			if pieces == 0 {
				break
			}
			if err := s.frame(m, k, r.ring, head, end, pieces); err != nil {
				return frames, err
			}
			head = end
			frames++
		}
		r.n.Head, r.n.Cur = head, head
	}
	if frames > 0 {
		m.in.Add(uint64(frames))
	}
	return frames, nil
}

// frameAt is the end of the frame that begins in a slot, and how many slots it has; 0
// if the rest is still to come.
func (r *ring) frameAt(i uint32) (end uint32, pieces int) {
	for i != r.tail {
		more := r.slots[i].Flags&NS_MOREFRAG != 0
		i = r.next(i)
		if pieces++; !more {
			return i, pieces
		}
	}
	return 0, 0
}

// frame forwards one.
func (s *Switch) frame(m *member, k int, r *ring, head, end uint32, pieces int) error {
	first := &r.slots[head]
	b := r.mem.Buf(r.bufs[head])
	kept := false
	if s.opts.Log != nil {
		var err error
		if kept, err = s.record(m, r, head, end); err != nil {
			return err
		}
	}
	if int(first.Len) >= ethHeader {
		if src := macOf(b[6:]); first.Flags&NS_NO_LEARN == 0 && b[6]&1 == 0 {
			*s.table.entry(src) = macEntry{src, m}
		}
		if err := s.deliver(m, k, r, head, end, pieces, s.target(m, b)); err != nil {
			return err
		}
	}
	for i := head; kept && i != end; i = r.next(i) {
		// What has not moved on may not be received into again.
		if err := s.renew(r.mem, &r.slots[i]); err != nil {
			return err
		}
	}
	return nil
}

// target is where a frame goes: nil means to all others, m itself nowhere.
func (s *Switch) target(m *member, b []byte) *member {
	if b[0]&1 != 0 {
		return nil
	}
	dst := macOf(b)
	if e := s.table.entry(dst); e.mac == dst {
		return e.at
	}
	return nil
}

func (s *Switch) deliver(m *member, k int, r *ring, head, end uint32, pieces int, to *member) error {
	if to == m {
		return nil
	}
	if to != nil {
		return s.send(to, k, r, head, end, pieces, true)
	}
	var last *member
	for _, other := range s.members {
		if other == m || len(other.tx) == 0 {
			continue
		}
		if last != nil {
			if err := s.send(last, k, r, head, end, pieces, false); err != nil {
				return err
			}
		}
		last = other
	}
	if last == nil {
		return nil
	}
	return s.send(last, k, r, head, end, pieces, true)
}

// send puts a frame into a port's TX ring. With move its buffers may go there.
func (s *Switch) send(to *member, k int, r *ring, head, end uint32, pieces int, move bool) (err error) {
	if len(to.tx) == 0 {
		to.dropped.Add(1)
		return nil
	}
	t := to.tx[k%len(to.tx)]
	if int(t.distance(t.n.Head, t.tail)) < pieces {
		// Sending, or looking what was sent, may make room; what was written down
		// goes first.
		to.queued = true
		if err := s.push(); err != nil {
			return err
		}
		if int(t.distance(t.n.Head, t.tail)) < pieces {
			to.dropped.Add(1)
			return nil
		}
	}
	at := t.n.Head
	for i := head; i != end; i = r.next(i) {
		rs, ts := &r.slots[i], &t.slots[at]
		ts.Len, ts.Flags, ts.Ptr = rs.Len, rs.Flags&(NS_MOREFRAG|NS_NO_LEARN), 0
		if move && t.mem == r.mem {
			err = s.exchange(r.mem, rs, ts)
		} else if err = s.renew(t.mem, ts); err == nil {
			copy(t.mem.Buf(ts.BufIdx), r.mem.Buf(rs.BufIdx)[:rs.Len])
		}
		if err != nil {
			return err
		}
		at = t.next(at)
	}
	t.n.Head, t.n.Cur = at, at
	to.queued = true
	to.out.Add(1)
	return nil
}
