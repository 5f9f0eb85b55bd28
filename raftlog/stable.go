package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/pastenet/paste/pmem"
)

const (
	stableRoot = "raft:"
	// MaxKey is the length in bytes of the longest key of Set.
	MaxKey      = pmem.MaxRootName - len(stableRoot)
	inlineValue = pmem.RootValue - 2
)

// ErrKeyNotFound is what Get returns for a key that was never set. Raft knows it
// by its text.
var ErrKeyNotFound = errors.New("not found")

// Set stores val under key, durably when it returns nil; a crash on the way
// finds the old value or the new one. A key has 1 to MaxKey bytes, none of them
// zero; a value fits into a frame of the pool. It is for the few values that
// raft keeps: a pool has room for some fifty.
func (s *Store) Set(key, val []byte) error {
	s.stable.Lock()
	defer s.stable.Unlock()
	if err := s.set(stableRoot+string(key), val); err != nil {
		return fmt.Errorf("set %q: %w", key, err)
	}
	return nil
}

func (s *Store) set(name string, val []byte) error {
	if most := s.p.FrameSize(); len(val) > most {
		return fmt.Errorf("%w: a value of %d bytes; the limit of this pool is %d", pmem.ErrSize, len(val), most)
	}
	old, had := s.p.Root(name)
	var r pmem.Root
	le.PutUint16(r.Value[:], uint16(len(val)))
	if len(val) <= inlineValue {
		copy(r.Value[2:], val)
	} else if err := s.setFrame(&r, val); err != nil {
		return err
	}
	if err := s.p.SetRoot(name, r); err != nil {
		s.p.Unref(r.Frame)
		return err
	}
	if had {
		s.p.Unref(old.Frame)
	}
	return nil
}

// setFrame makes a long value durable, before a root leads to it.
func (s *Store) setFrame(r *pmem.Root, val []byte) error {
	var f [1]uint32
	if s.p.Alloc(f[:]) == 0 {
		return fmt.Errorf("%w: no frame is free", pmem.ErrFull)
	}
	r.Kind, r.Frame = pmem.KindFrame, f[0]
	le.PutUint32(r.Value[4:], crc32.Checksum(val, castagnoli))
	err := s.p.Guard(func() error { copy(s.p.Frame(r.Frame), val); return nil })
	if err == nil {
		err = s.p.Persist(s.p.Offset(r.Frame, 0), uint64(len(val)))
	}
	if err != nil {
		s.p.Unref(r.Frame)
	}
	return err
}

// Get returns what Set stored under key, or ErrKeyNotFound.
func (s *Store) Get(key []byte) ([]byte, error) {
	s.stable.Lock() // or the frame may be given to somebody else meanwhile
	defer s.stable.Unlock()
	r, ok := s.p.Root(stableRoot + string(key))
	if !ok {
		return nil, ErrKeyNotFound
	}
	val, err := s.value(&r)
	if err != nil {
		return nil, fmt.Errorf("get %q: %w", key, err)
	}
	return val, nil
}

func (s *Store) value(r *pmem.Root) (val []byte, err error) {
	n := int(le.Uint16(r.Value[:]))
	switch {
	case n <= inlineValue:
		return append([]byte{}, r.Value[2:2+n]...), nil
	case r.Frame == 0 || n > s.p.FrameSize():
		return nil, fmt.Errorf("%w: a value of %d bytes", pmem.ErrDamaged, n)
	}
	err = s.p.Guard(func() error { val = append([]byte{}, s.p.Frame(r.Frame)[:n]...); return nil })
	if err == nil && crc32.Checksum(val, castagnoli) != le.Uint32(r.Value[4:]) {
		err = fmt.Errorf("%w: frame %d", pmem.ErrChecksum, r.Frame)
	}
	return val, err
}

// SetUint64 is Set of a number.
func (s *Store) SetUint64(key []byte, val uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

// GetUint64 is Get of a number.
func (s *Store) GetUint64(key []byte) (uint64, error) {
	b, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("get %q: its value has %d bytes, and is no number", key, len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}
