package kv

import (
	"errors"
	"fmt"
	"math"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/btree"
)

// Change is what becomes of one key.
type Change struct {
	Key []byte
	// Delete removes the key, if it is there.
	Delete bool
	// Head, Bytes and Tail, one behind the other, are the value, which is copied,
	// unless Value is not nil. The first fragment holds all of Head, which has at
	// most MaxHead bytes.
	Head, Bytes, Tail []byte
	// Lead, of such a value, puts what the log keeps in front of it in front of the
	// value in the tree, too (Value.Pre), unless it is so short that it is stored in
	// the tree itself. One checksum is good for both then. The key has at most MaxLead bytes.
	Lead bool
	// Value and Front are Put's.
	Value *Value
	Front int
}

// Limits of a Change.
const (
	MaxHead = splitLeast              // bytes of its Head
	MaxLead = math.MaxUint8 - headLen // bytes of the key, with Lead
)

func (c *Change) size() int { return len(c.Head) + len(c.Bytes) + len(c.Tail) }

// Apply makes changes that belong together: after a crash all of them are there,
// or none. Changes of one key count in their order. They are neither durable nor
// certain before Commit. On an error nothing was changed; pmem.ErrFull when the
// pool has no room for them, or its log not the entries.
func (s *Store) Apply(changes ...Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries := 0
	for i := range changes {
		c := &changes[i]
		if err := s.changeable(c.Key); err != nil {
			return fmt.Errorf("apply: %w", err)
		}
		n, err := s.fragments(c)
		if err != nil {
			return fmt.Errorf("apply: %w", err)
		}
		entries += n
	}
	if err := s.logRoom(entries); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	err := s.p.Guard(func() error {
		if len(changes) == 0 {
			return nil
		}
		if len(changes) == 1 {
			return s.applyOne(&changes[0])
		}
		return s.applyAll(changes)
	})
	if err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	return nil
}

// fragments is how many entries of the log a change takes at most.
func (s *Store) fragments(c *Change) (int, error) {
	switch {
	case c.Delete:
		return 1, nil
	case c.Value != nil:
		return len(c.Value.Frags) + 1, s.measure(c.Value)
	case c.size() > math.MaxUint32 || len(c.Head) > MaxHead:
		return 0, fmt.Errorf("%w: %d bytes, %d of them its head", ErrValueTooLong, c.size(), len(c.Head))
	case c.Lead && len(c.Key) > MaxLead:
		return 0, fmt.Errorf("%w: %d bytes, with the lead at most %d", ErrKeyTooLong, len(c.Key), MaxLead)
	}
	n := c.size()/s.p.FrameSize() + 2
	if n >= s.log.MaxFragments() {
		return 0, fmt.Errorf("%w: %d bytes", ErrValueTooLong, c.size())
	}
	return n, nil
}

// applyOne makes a change that stands alone.
func (s *Store) applyOne(c *Change) error {
	err := s.applyChange(c, s.group)
	if errors.Is(err, pmem.ErrFull) {
		if _, err := s.makeRoom(); err != nil {
			return err
		}
		err = s.applyChange(c, s.group)
	}
	return err
}

// applyAll makes changes of which none may fail once the first is made.
func (s *Store) applyAll(changes []Change) error {
	err := s.reserve(changes)
	if errors.Is(err, pmem.ErrFull) {
		if _, err := s.makeRoom(); err != nil {
			return err
		}
		err = s.reserve(changes)
	}
	if err != nil {
		return err
	}
	defer func() {
		s.p.UnrefAll(s.ahead)
		s.ahead = s.ahead[:0]
	}()
	last := len(changes) - 1
	for i := range changes {
		if err := s.applyChange(&changes[i], i < last || s.group); err != nil {
			return s.fail(err) // a part of the tree's changes cannot be taken back
		}
	}
	return nil
}

// reserve takes the frames that changes may need from the pool.
func (s *Store) reserve(changes []Change) error {
	nodes, frames := 0, 1
	size := 0 // of heads and values in frames that many share
	for i := range changes {
		c := &changes[i]
		k, frags := headLen+len(c.Key), 0
		switch {
		case c.Delete:
		case c.Value != nil:
			frags = len(c.Value.Frags)
			k += min(int(c.Value.Len), s.p.FrameSize()/8)
		default:
			frags = c.size()/s.p.FrameSize() + 2
			k += c.size()
		}
		nodes += s.tree.MostFrames(frags)
		if size += k; size > s.p.FrameSize()/2 { // frames are not always filled to the end
			frames += size/(s.p.FrameSize()/2) + 1
			size = 0
		}
	}
	if err := s.tree.Reserve(nodes); err != nil {
		return err
	}
	had := len(s.ahead)
	s.ahead = append(s.ahead, make([]uint32, frames)...)
	n := s.p.Alloc(s.ahead[had:])
	s.ahead = s.ahead[:had+n]
	if n < frames {
		s.p.UnrefAll(s.ahead)
		s.ahead = s.ahead[:0]
		return fmt.Errorf("%w: %d frames are needed, %d are free", pmem.ErrFull, frames, n)
	}
	return nil
}

func (s *Store) applyChange(c *Change, more bool) error {
	switch {
	case c.Delete:
		// A record is written also for a key that is not there: it may be what
		// completes a group.
		if _, err := s.deleteAny(c.Key, more); err != nil {
			return err
		}
		s.stats.Deletes++
		return nil
	case c.Value != nil:
		if _, err := s.put(c.Key, c.Value, c.Front, more); err != nil {
			return err
		}
	default:
		if err := s.putBytes(c, more); err != nil {
			return err
		}
	}
	s.stats.Puts++
	return nil
}

// putBytes is put of a copy.
func (s *Store) putBytes(c *Change, more bool) error {
	h := header{op: opPut, more: more, key: c.Key, seq: s.seq + 1, size: uint32(c.size())}
	var sums []uint32
	if c.size() <= btree.MaxInline {
		h.op = opInline
		b := append(append(append(s.small[:0], c.Head...), c.Bytes...), c.Tail...)
		if err := s.packRecord(&h, b, false); err != nil {
			return err
		}
		s.smallVal = Value{Inline: b, Frags: s.smallVal.Frags[:0]}
	} else {
		defer s.dropPassed()
		if c.Lead {
			h.op = opLead
		}
		if err := s.packValue(&h, c); err != nil {
			return err
		}
		if c.Lead {
			sums = s.sums
		}
	}
	if _, err := s.tree.Put(c.Key, &s.smallVal); err != nil {
		return err
	}
	return s.append(sums)
}

// deleteAny is delete that writes a record in any case.
func (s *Store) deleteAny(key []byte, more bool) (found bool, err error) {
	h := header{op: opDelete, more: more, key: key, seq: s.seq + 1}
	if err := s.packRecord(&h, nil, true); err != nil {
		return false, err
	}
	if found, err = s.tree.Delete(key); err != nil {
		return false, err
	}
	return found, s.append(nil)
}
