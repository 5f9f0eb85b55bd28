package intake

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/pastenet/paste/pmem"
)

// Sum is a SHA-256.
type Sum = [sha256.Size]byte

const keyLen = 8 + 8 + sha256.Size

// expirePerKey is how many keys that are too old are dropped for each new one, so
// that a smaller limit is reached without one long stop.
const expirePerKey = 4

// Find returns the record that was stored by an idempotency key within the window,
// and what was asked for then.
func (s *State) Find(key Sum) (seq uint64, asked Sum, found bool, err error) {
	if s.tree == nil {
		return 0, asked, false, nil
	}
	found, err = s.tree.Get(append(append(s.buf[:0], 'k'), key[:]...), &s.value)
	if err != nil || !found {
		return 0, asked, false, err
	}
	v := s.value.Inline
	if len(v) != keyLen {
		return 0, asked, false, fmt.Errorf("%w: an idempotency key with %d bytes", pmem.ErrDamaged, len(v))
	}
	if s.past(int64(le.Uint64(v[8:]))) {
		return 0, asked, false, nil
	}
	return le.Uint64(v), Sum(v[16:]), true, nil
}

// past says whether a key of that time is not within the window any more.
func (s *State) past(at int64) bool {
	return s.o.Now().Sub(time.Unix(0, at)) >= s.o.Window
}

// Keys is how many keys are kept.
func (s *State) Keys() uint64 { return s.keys }

// Limits returns how many keys are kept at most, and for how long.
func (s *State) Limits() (keys uint64, window time.Duration) { return s.o.Keys, s.o.Window }

// RoomForKey makes sure that Remember will not fail for want of room: a record that
// was appended cannot be taken back. pmem.ErrFull says that there is none.
func (s *State) RoomForKey() error {
	if err := s.begin(); err != nil {
		return err
	}
	return s.tree.Reserve(4 * s.tree.MostFrames(0)) // three for Remember, and what Commit has put aside
}

// Remember keeps a key, in place of the same one from before the window. It must
// be committed before the log is, with the record.
func (s *State) Remember(key, asked Sum, seq uint64) error {
	for dropped, n := true, 0; dropped && n < expirePerKey; n++ {
		var err error
		if dropped, err = s.expireOne(); err != nil {
			return fmt.Errorf("drop an idempotency key: %w", err)
		}
	}
	if err := s.forget(key); err != nil {
		return fmt.Errorf("drop an idempotency key: %w", err)
	}
	v := le.AppendUint64(nil, seq)
	v = append(le.AppendUint64(v, uint64(s.o.Now().UnixNano())), asked[:]...)
	if err := s.put(append([]byte{'k'}, key[:]...), v); err != nil {
		return fmt.Errorf("keep an idempotency key: %w", err)
	}
	if err := s.put(s.numbered('s', seq), key[:]); err != nil {
		return fmt.Errorf("keep an idempotency key: %w", err)
	}
	s.keys++
	return nil
}

// forget drops a key, if it is there.
func (s *State) forget(key Sum) error {
	if s.tree == nil {
		return nil
	}
	name := append([]byte{'k'}, key[:]...)
	found, err := s.tree.Get(name, &s.value)
	if err != nil || !found {
		return err
	}
	seq := le.Uint64(s.value.Inline)
	s.keys--
	return errors.Join(s.delete(name), s.delete(s.numbered('s', seq)))
}

// expireOne drops the oldest key if it is past, or if there is no room for one
// more, and reports whether it did.
func (s *State) expireOne() (bool, error) {
	key, hash, err := s.first('s')
	if key == nil || err != nil {
		return false, err
	}
	if len(hash) != len(Sum{}) {
		return false, fmt.Errorf("%w: the name of an idempotency key has %d bytes", pmem.ErrDamaged, len(hash))
	}
	found, err := s.tree.Get(append([]byte{'k'}, hash...), &s.value)
	if err != nil {
		return false, err
	}
	if found && s.keys < s.o.Keys && !s.past(int64(le.Uint64(s.value.Inline[8:]))) {
		return false, nil
	}
	if found {
		return true, s.forget(Sum(hash))
	}
	return true, s.delete(key)
}
