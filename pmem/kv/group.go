package kv

import (
	"errors"
	"fmt"
)

// Begin begins a group of changes that belong together: what follows, until End,
// is there after a crash as a whole, or not at all. Changes are seen at once, also
// within the group. Commit must not be called before End.
//
// A checkpoint cannot be made within a group, so a change may find the pool
// full (pmem.ErrFull) that would have found room alone; the others stay.
func (s *Store) Begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return fmt.Errorf("begin group: %w", s.failed)
	}
	if s.group {
		return errors.New("begin group: one has begun already")
	}
	if 2*s.log.Used() >= s.p.LogEntries() || 4*s.p.Free() < int(s.p.Frames()) {
		if _, err := s.makeRoom(); err != nil {
			return err
		}
	}
	s.group, s.before = true, s.seq
	return nil
}

// End ends a group. An error means that the store has failed.
func (s *Store) End() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.group {
		return nil
	}
	s.group = false
	if s.seq == s.before || s.failed != nil {
		return s.failed
	}
	// The last record of a group is one that changes nothing.
	err := s.p.Guard(func() error {
		h := header{op: opDelete, seq: s.seq + 1}
		if err := s.packRecord(&h, nil, true); err != nil {
			return err
		}
		return s.append(nil)
	})
	if err != nil {
		return s.fail(err)
	}
	return nil
}

// Clear removes all keys. After a crash either all of them are there or none.
func (s *Store) Clear() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.changeable(nil); err != nil {
		return fmt.Errorf("clear: %w", err)
	}
	if err := s.logRoom(1); err != nil {
		return fmt.Errorf("clear: %w", err)
	}
	err := s.p.Guard(func() error {
		h := header{op: opClear, more: s.group, seq: s.seq + 1}
		if err := s.packRecord(&h, nil, true); err != nil {
			return err
		}
		if err := s.tree.Clear(); err != nil {
			return err
		}
		return s.append(nil)
	})
	if err != nil {
		return fmt.Errorf("clear: %w", err)
	}
	return nil
}
