package kv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/btree"
)

var le = binary.LittleEndian

const (
	headLen   = 24
	headMagic = 'K' | 'V'<<8

	opPut    = 1
	opInline = 2
	opDelete = 3
	opClear  = 4 // of all keys
	opLead   = 5 // put of a value whose Pre are this head and the key

	opMore = 0x80 // the record's change and that of the next one belong together
)

// header is the beginning of a record; see the package documentation.
type header struct {
	op   uint8
	more bool // opMore
	pre  uint8
	seq  uint64
	size uint32
	key  []byte
}

func (h *header) encode(b []byte) {
	clear(b[:headLen])
	le.PutUint16(b, headMagic)
	b[2], b[3], b[4] = h.op, byte(len(h.key)), h.pre
	if h.more {
		b[2] |= opMore
	}
	le.PutUint64(b[8:], h.seq)
	le.PutUint32(b[16:], h.size)
	copy(b[headLen:], h.key)
}

// parseRecord reads the header of a record. Its key lies in the pool.
func parseRecord(p *pmem.Pool, r *pmem.Record) (header, error) {
	if len(r.Fragments) == 0 {
		return header{}, fmt.Errorf("record %d: %w", r.Seq, ErrForeign)
	}
	b := r.Payload(0)
	if len(b) < headLen || le.Uint16(b) != headMagic || b[2]&^opMore < opPut || b[2]&^opMore > opLead || len(b) < headLen+int(b[3]) {
		if err := r.Verify(); err != nil {
			return header{}, err
		}
		return header{}, fmt.Errorf("record %d: %w", r.Seq, ErrForeign)
	}
	h := header{op: b[2] &^ opMore, more: b[2]&opMore != 0, pre: b[4], seq: le.Uint64(b[8:]), size: le.Uint32(b[16:]), key: b[headLen : headLen+int(b[3])]}
	if want := int64(headLen+len(h.key)) + int64(h.size); r.Length != want {
		if err := r.Verify(); err != nil {
			return header{}, err
		}
		return header{}, fmt.Errorf("record %d: %w: %d bytes, its head says %d", r.Seq, pmem.ErrDamaged, r.Length, want)
	}
	return h, nil
}

// value is what the record puts.
func (h *header) value(p *pmem.Pool, r *pmem.Record) (Value, error) {
	head := headLen + len(h.key)
	if h.op == opInline {
		if len(r.Fragments) != 1 || h.size > btree.MaxInline {
			return Value{}, fmt.Errorf("%w: %d bytes inline", pmem.ErrDamaged, h.size)
		}
		return Value{Inline: r.Payload(0)[head:]}, nil
	}
	if h.op == opLead {
		if head > math.MaxUint8 || head > int(r.Fragments[0].Len) {
			return Value{}, fmt.Errorf("%w: a key of %d bytes in front of a value", pmem.ErrDamaged, len(h.key))
		}
		v := Value{Frags: r.Fragments, Len: h.size + uint32(head), Pre: uint8(head)}
		v.Sum = btree.SumOf(p, v.Frags)
		return v, nil
	}
	v := Value{Len: h.size, Pre: h.pre}
	first := r.Fragments[0]
	if int(first.Len) > head {
		first.Off += uint16(head)
		first.Len -= uint16(head)
		v.Frags = append(v.Frags, first)
	}
	v.Frags = append(v.Frags, r.Fragments[1:]...)
	v.Sum = btree.SumOf(p, v.Frags)
	return v, nil
}

// whole returns the number of the last record up to which every change has all
// that belongs to it, and whether the log goes on behind that: a crash came
// while its last batch was stored.
func (s *Store) whole() (last uint64, torn bool, err error) {
	for r, err := range s.log.Records() {
		if err != nil {
			return 0, false, err
		}
		h, err := parseRecord(s.p, &r)
		if err != nil {
			return 0, false, err
		}
		if torn = h.more; !torn {
			last = r.Seq
		}
	}
	return last, torn, nil
}

// replay applies the log records behind the tree's checkpoint.
func (s *Store) replay() error {
	last, torn, err := s.whole()
	if err != nil {
		return err
	}
	for r, err := range s.log.Records() {
		if err != nil {
			return err
		}
		if r.Seq > last {
			break // nobody was told of it
		}
		h, err := parseRecord(s.p, &r)
		if err != nil {
			return err
		}
		if h.seq <= s.seq {
			continue // a crash came between the checkpoint and the log's truncation
		}
		if err := s.apply(&h, &r); err != nil {
			return err
		}
	}
	if torn && !s.p.ReadOnly() {
		return s.checkpoint() // without what nobody was told of, before anything follows it
	}
	return nil
}

func (s *Store) apply(h *header, r *pmem.Record) error {
	if err := r.Verify(); err != nil {
		return fmt.Errorf("%w (key %q)", err, h.key)
	}
	if h.seq != s.seq+1 {
		return fmt.Errorf("record %d: %w: change number %d follows %d", r.Seq, pmem.ErrDamaged, h.seq, s.seq)
	}
	err := s.change(h, r)
	if errors.Is(err, pmem.ErrFull) {
		// What makes room is that nodes of the generation before are not needed
		// any more.
		s.tree.SetTag(s.seq)
		if err := s.tree.Commit(); err != nil {
			return err
		}
		err = s.change(h, r)
	}
	if err != nil {
		return fmt.Errorf("record %d: %w", r.Seq, err)
	}
	s.seq = h.seq
	s.stats.Replayed++
	return nil
}

// change makes a record's change to the tree.
func (s *Store) change(h *header, r *pmem.Record) error {
	switch h.op {
	case opDelete:
		_, err := s.tree.Delete(h.key)
		return err
	case opClear:
		return s.tree.Clear()
	}
	v, err := h.value(s.p, r)
	if err == nil {
		_, err = s.tree.Put(h.key, &v)
	}
	return err
}
