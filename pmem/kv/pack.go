package kv

import (
	"fmt"
	"hash/crc32"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/btree"
)

// The pack is a frame that the heads of records, and values that are copied
// there, share with those that follow.

// splitLeast is the least number of bytes of a value that are put into what is
// left of a frame before the value goes on in the next one.
const splitLeast = 256

// packFrags is packRecord for a value that is copied behind its head and
// stays there.
func (s *Store) packFrags(h *header, v *Value) error {
	b := make([]byte, 0, 512)
	for _, f := range v.Frags {
		b = append(b, s.p.Frame(f.Frame)[f.Off:int(f.Off)+int(f.Len)]...)
	}
	if err := s.packRecord(h, b, false); err != nil {
		return err
	}
	at := s.frags[0]
	at.Off += uint16(headLen + len(h.key))
	at.Len = uint16(len(b))
	s.smallVal = Value{Frags: append(s.smallVal.Frags[:0], at), Len: uint32(len(b)), Pre: v.Pre}
	s.smallVal.Sum = btree.SumOf(s.p, s.smallVal.Frags)
	return nil
}

// packRecord copies a record's head, and its value if that is small, into the
// pack, and makes s.frags name it. With dip the frame may be one of those that
// are kept for this.
func (s *Store) packRecord(h *header, value []byte, dip bool) error {
	n := headLen + len(h.key) + len(value)
	if err := s.packRoom(n, dip); err != nil {
		return err
	}
	b := s.p.Frame(s.pack)[s.packed:]
	h.encode(b)
	copy(b[headLen+len(h.key):], value)
	s.frags = append(s.frags[:0], pmem.Fragment{Frame: s.pack, Off: uint16(s.packed), Len: uint16(n)})
	s.packed += n
	return nil
}

// packValue copies a record's head and its value, of any length, into as many
// frames as they take, and makes s.frags name the record and s.smallVal the
// value. On an error a part of the pack is wasted, nothing else.
func (s *Store) packValue(h *header, c *Change) error {
	left := c.size()
	n := headLen + len(h.key) // bytes of this piece of the record, so far
	if err := s.packRoom(n+min(left, splitLeast), false); err != nil {
		return err
	}
	h.encode(s.p.Frame(s.pack)[s.packed:])
	s.frags = s.frags[:0]
	v := Value{Frags: s.smallVal.Frags[:0], Len: uint32(left)}
	skip := n // bytes of the piece that are not the value
	if c.Lead {
		v.Len, v.Pre, skip = v.Len+uint32(n), uint8(n), 0
	}
	for _, b := range [3][]byte{c.Head, c.Bytes, c.Tail} {
		for len(b) > 0 {
			if s.packed+n == s.p.FrameSize() {
				v.Frags = s.endPiece(v.Frags, skip, n)
				s.p.Ref(s.pack)
				s.passed = append(s.passed, s.pack)
				if n, skip = 0, 0; s.packRoom(min(left, s.p.FrameSize()), false) != nil {
					return fmt.Errorf("%w: no frame is free", pmem.ErrFull)
				}
			}
			k := copy(s.p.Frame(s.pack)[s.packed+n:], b)
			b = b[k:]
			n += k
			left -= k
		}
	}
	v.Frags = s.endPiece(v.Frags, skip, n)
	if c.Lead {
		v.Sum = s.sumPieces()
	} else {
		v.Sum = btree.SumOf(s.p, v.Frags)
	}
	s.smallVal = v
	return nil
}

// sumPieces takes the checksums of the record's fragments, as the log wants them, into
// s.sums, and returns that of all of them together.
func (s *Store) sumPieces() (all uint32) {
	s.sums = s.sums[:0]
	whole := true // the last one goes on from the first
	for i, f := range s.frags {
		b := s.p.Frame(f.Frame)[f.Off : int(f.Off)+int(f.Len)]
		sum := uint32(0)
		if i > 0 && s.p.Continues(s.frags[i-1], f) {
			sum = s.sums[i-1]
		} else {
			whole = i == 0
		}
		sum = crc32.Update(sum, castagnoli, b)
		s.sums = append(s.sums, sum)
		if whole {
			all = sum
		} else {
			all = crc32.Update(all, castagnoli, b)
		}
	}
	return all
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// endPiece notes the piece of n bytes that begins where the pack is used up to,
// of which all but the first skip are the value.
func (s *Store) endPiece(value []pmem.Fragment, skip, n int) []pmem.Fragment {
	at := pmem.Fragment{Frame: s.pack, Off: uint16(s.packed), Len: uint16(n)}
	s.frags = append(s.frags, at)
	s.packed += n
	if at.Len -= uint16(skip); at.Len > 0 {
		at.Off += uint16(skip)
		value = append(value, at)
	}
	return value
}

// packRoom makes sure that the pack has room for n bytes.
func (s *Store) packRoom(n int, dip bool) error {
	if s.pack != 0 && s.packed+n <= s.p.FrameSize() {
		return nil
	}
	var f [1]uint32
	switch k := len(s.ahead); {
	case k > 0:
		f[0] = s.ahead[k-1]
		s.ahead = s.ahead[:k-1]
	case s.p.Alloc(f[:]) > 0:
	case dip && len(s.spare) > 0:
		f[0] = s.spare[len(s.spare)-1]
		s.spare = s.spare[:len(s.spare)-1]
	default:
		return fmt.Errorf("%w: no frame is free", pmem.ErrFull)
	}
	s.dropPack()
	s.pack, s.packed = f[0], 0
	return nil
}

// dropPack leaves the shared frame to the records in it.
func (s *Store) dropPack() {
	if s.pack != 0 {
		s.p.Unref(s.pack)
		s.pack = 0
	}
}

// dropPassed gives up what kept the frames of a value that fills several.
func (s *Store) dropPassed() {
	if len(s.passed) > 0 {
		s.p.UnrefAll(s.passed)
		s.passed = s.passed[:0]
	}
}

// fillSpare keeps frames for the records of Delete.
func (s *Store) fillSpare() {
	const n = 4
	if k := len(s.spare); k < n && !s.p.ReadOnly() {
		s.spare = append(s.spare, make([]uint32, n-k)...)
		s.spare = s.spare[:k+s.p.Alloc(s.spare[k:])]
	}
}
