package kv

import (
	"errors"
	"fmt"
	"math"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/btree"
)

// Put stores v under key, in place of what was there; Len and Sum are computed.
// The store takes references to the frames of its fragments; the caller keeps
// its own. The content must not change any more.
//
// front is how many bytes directly in front of the first fragment, in its
// frame, belong to the caller and may be overwritten: with enough of them a
// record needs no fragment of its own for its head.
//
// The change is neither durable nor certain before Commit. On an error nothing
// was changed; pmem.ErrFull when the pool has no room.
func (s *Store) Put(key []byte, v *Value, front int) (replaced bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.changeable(key); err != nil {
		return false, fmt.Errorf("put: %w", err)
	}
	if err := s.measure(v); err != nil {
		return false, fmt.Errorf("put: %w", err)
	}
	if err := s.logRoom(len(v.Frags) + 1); err != nil {
		return false, fmt.Errorf("put: %w", err)
	}
	try := func() (err error) {
		replaced, err = s.put(key, v, front, false)
		return err
	}
	err = s.p.Guard(try)
	if errors.Is(err, pmem.ErrFull) {
		if _, err := s.makeRoom(); err != nil {
			return false, fmt.Errorf("put: %w", err)
		}
		err = s.p.Guard(try)
	}
	if err != nil {
		return false, fmt.Errorf("put: %w", err)
	}
	s.stats.Puts++
	return replaced, nil
}

// PutBytes is Put of a copy of b.
func (s *Store) PutBytes(key, b []byte) (replaced bool, err error) {
	if len(b) <= btree.MaxInline {
		return s.Put(key, &Value{Inline: b}, 0)
	}
	fs := s.p.FrameSize()
	frames := make([]uint32, (len(b)+fs-1)/fs)
	n := s.p.Alloc(frames)
	if n < len(frames) {
		if _, err := s.MakeRoom(); err != nil {
			return false, err
		}
		n += s.p.Alloc(frames[n:])
	}
	defer s.p.UnrefAll(frames[:n])
	if n < len(frames) {
		return false, fmt.Errorf("put: %w: %d frames are needed, %d are free", pmem.ErrFull, len(frames), n)
	}
	var v Value
	err = s.p.Guard(func() error {
		for _, f := range frames {
			k := copy(s.p.Frame(f), b)
			v.Frags = append(v.Frags, pmem.Fragment{Frame: f, Len: uint16(k)})
			b = b[k:]
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("put: %w", err)
	}
	return s.Put(key, &v, 0)
}

// Delete removes key and reports whether it was there. It is durable with the
// next Commit, and possible when the pool is full.
func (s *Store) Delete(key []byte) (found bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.changeable(key); err != nil {
		return false, fmt.Errorf("delete: %w", err)
	}
	if found, err := s.tree.Get(key, &s.smallVal); !found || err != nil {
		return false, err
	}
	if err := s.logRoom(1); err != nil {
		return false, fmt.Errorf("delete: %w", err)
	}
	try := func() (err error) {
		found, err = s.delete(key, false)
		return err
	}
	err = s.p.Guard(try)
	if errors.Is(err, pmem.ErrFull) {
		if _, err := s.makeRoom(); err != nil {
			return false, fmt.Errorf("delete: %w", err)
		}
		err = s.p.Guard(try)
	}
	if err != nil {
		return false, fmt.Errorf("delete: %w", err)
	}
	s.stats.Deletes++
	return found, nil
}

func (s *Store) changeable(key []byte) error {
	switch {
	case s.failed != nil:
		return s.failed
	case s.p.ReadOnly():
		return pmem.ErrReadOnly
	case len(key) > MaxKey:
		return ErrKeyTooLong
	}
	return nil
}

// measure computes a value's length and checksum.
func (s *Store) measure(v *Value) error {
	sum := uint64(0)
	for i, f := range v.Frags {
		if b := s.p.Frame(f.Frame); b == nil || f.Len == 0 || int(f.Off)+int(f.Len) > len(b) {
			return fmt.Errorf("%w %d: bytes %d to %d of frame %d", pmem.ErrFragment, i, f.Off, int(f.Off)+int(f.Len), f.Frame)
		}
		sum += uint64(f.Len)
	}
	if sum > math.MaxUint32 || len(v.Frags) >= s.log.MaxFragments() {
		return fmt.Errorf("%w: %d bytes in %d fragments", ErrValueTooLong, sum, len(v.Frags))
	}
	if len(v.Frags) == 0 && len(v.Inline) > btree.MaxInline {
		return fmt.Errorf("%w: %d bytes inline, at most %d", ErrValueTooLong, len(v.Inline), btree.MaxInline)
	}
	if len(v.Frags) > 0 && uint16(v.Pre) > v.Frags[0].Len {
		return fmt.Errorf("%w 0: %d bytes, %d of them in front of the value", pmem.ErrFragment, v.Frags[0].Len, v.Pre)
	}
	v.Len = uint32(sum)
	return nil
}

// logRoom makes sure that n entries fit into the log.
func (s *Store) logRoom(n int) error {
	if s.group {
		n++ // End's
	}
	left := func() uint64 { return s.p.LogEntries() - s.log.Used() }
	if left() >= uint64(n) {
		return nil
	}
	if uint64(n) > s.p.LogEntries() {
		return fmt.Errorf("%w: %d fragments, the pool's log has %d entries", ErrValueTooLong, n, s.p.LogEntries())
	}
	if s.group {
		return fmt.Errorf("%w: %d of %d log entries are left", pmem.ErrFull, left(), s.p.LogEntries())
	}
	s.stats.Stalls++
	return s.checkpoint()
}

// put changes the tree, then stages the record: what can fail comes first.
func (s *Store) put(key []byte, v *Value, front int, more bool) (replaced bool, err error) {
	h := header{op: opPut, more: more, key: key, pre: v.Pre, seq: s.seq + 1, size: v.Len}
	switch small := s.p.FrameSize() / 8; {
	case v.Size() <= btree.MaxInline && v.Pre == 0:
		h.op, h.pre = opInline, 0
		b := v.AppendTo(s.p, s.small[:0])
		h.size = uint32(len(b))
		s.smallVal = Value{Inline: b, Frags: s.smallVal.Frags[:0]}
		if err := s.packRecord(&h, b, false); err != nil {
			return false, err
		}
		v = &s.smallVal
	case int(v.Len) < small:
		if err := s.packFrags(&h, v); err != nil {
			return false, err
		}
		v = &s.smallVal
	case front >= headLen+len(key) && int(v.Frags[0].Off) >= headLen+len(key):
		v.Sum = btree.SumOf(s.p, v.Frags)
		s.frags = append(s.frags[:0], v.Frags...)
		f := &s.frags[0]
		n := headLen + len(key)
		f.Off -= uint16(n)
		f.Len += uint16(n)
		h.encode(s.p.Frame(f.Frame)[f.Off:])
	default:
		v.Sum = btree.SumOf(s.p, v.Frags)
		if err := s.packRecord(&h, nil, false); err != nil {
			return false, err
		}
		s.frags = append(s.frags, v.Frags...)
	}
	if replaced, err = s.tree.Put(key, v); err != nil {
		return false, err
	}
	return replaced, s.append(nil)
}

func (s *Store) delete(key []byte, more bool) (found bool, err error) {
	h := header{op: opDelete, more: more, key: key, seq: s.seq + 1}
	if err := s.packRecord(&h, nil, true); err != nil {
		return false, err
	}
	if found, err = s.tree.Delete(key); err != nil || !found {
		return false, err
	}
	return true, s.append(nil)
}

// append stages the record in s.frags, whose checksums are sums if they are known.
// The tree has the change already.
func (s *Store) append(sums []uint32) (err error) {
	if len(sums) > 0 {
		_, err = s.log.AppendSummed(s.frags, sums, true)
	} else {
		_, err = s.log.Append(s.frags, true)
	}
	if err != nil {
		return s.fail(err)
	}
	s.seq++
	s.staged++
	return nil
}
