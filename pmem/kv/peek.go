package kv

import "github.com/pastenet/paste/pmem/btree"

// The functions of this file are for a program that is alone with its store, or
// keeps others from changing it: what they return is not copied, and nobody's
// reference keeps it.

// Peek is Get without references: v, also when it is inline, lies in the pool
// and is valid until the store is changed. Checksums are not looked at. A change of
// the same key that follows has the way to it in the tree already, so one goroutine at
// a time may call Peek.
func (s *Store) Peek(key []byte, v *Value) (found bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.tree.Find(key, v)
}

// Ascend calls fn with each key that is not smaller than from, in order, with its
// value, until fn returns false. Both are valid within the call; fn must not
// call the store.
func (s *Store) Ascend(from []byte, fn func(key []byte, v *Value) bool) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var v Value
	return s.tree.Ascend(from, func(e btree.Entry) bool {
		e.Value(&v)
		return fn(e.Key(), &v)
	})
}

// Descend is Ascend in falling order, from the last key that is not larger than
// from.
func (s *Store) Descend(from []byte, fn func(key []byte, v *Value) bool) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var v Value
	return s.tree.Descend(from, func(e btree.Entry) bool {
		e.Value(&v)
		return fn(e.Key(), &v)
	})
}

// Count returns how many keys there are from lo on and below hi.
func (s *Store) Count(lo, hi []byte) (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.tree.Count(lo, hi)
}

// Pick calls fn with a key from lo on and below hi, chosen by rnd, which returns
// a number from 0 up to n-1, and reports whether there is one. fn is as Ascend's.
func (s *Store) Pick(lo, hi []byte, rnd func(n int) int, fn func(key []byte, v *Value)) (bool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var v Value
	return s.tree.Pick(lo, hi, rnd, func(e btree.Entry) {
		e.Value(&v)
		fn(e.Key(), &v)
	})
}
