package intake

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Cursor is where a reader is.
type Cursor struct {
	Name string
	// Next is the number of the first record that is not acknowledged.
	Next uint64
	// Protects: the records from Next on are not dropped.
	Protects bool
}

const cursorLen = 9

// Limits of cursors.
const (
	MaxCursors = 1000
	MaxName    = 64 // bytes
)

// Errors of cursors.
var (
	ErrNoCursor = errors.New("there is no such cursor")
	ErrCursors  = fmt.Errorf("there are %d cursors already", MaxCursors)
)

// Cursors returns all cursors, by name.
func (s *State) Cursors() []Cursor {
	var all []Cursor
	for _, name := range slices.Sorted(maps.Keys(s.cursors)) {
		all = append(all, s.cursors[name])
	}
	return all
}

// Cursor returns the cursor of that name.
func (s *State) Cursor(name string) (Cursor, bool) {
	c, ok := s.cursors[name]
	return c, ok
}

// Len is how many cursors there are.
func (s *State) Len() int { return len(s.cursors) }

// Set makes a cursor, or moves one. It is durable with the next Commit.
func (s *State) Set(c Cursor) error {
	if _, ok := s.cursors[c.Name]; !ok && len(s.cursors) >= MaxCursors {
		return ErrCursors
	}
	flags := byte(0)
	if c.Protects {
		flags = 1
	}
	v := append(le.AppendUint64(nil, c.Next), flags)
	if err := s.put(append([]byte{'c'}, c.Name...), v); err != nil {
		return fmt.Errorf("keep cursor %q: %w", c.Name, err)
	}
	s.cursors[c.Name] = c
	return nil
}

// Remove removes a cursor.
func (s *State) Remove(name string) error {
	if _, ok := s.cursors[name]; !ok {
		return ErrNoCursor
	}
	if err := s.delete(append([]byte{'c'}, name...)); err != nil {
		return fmt.Errorf("remove cursor %q: %w", name, err)
	}
	delete(s.cursors, name)
	return nil
}

// Floor returns the cursor that protects the most, and so the first record that
// must not be dropped; ok is false if there is none. It is that of the last
// Commit only if nothing has changed since.
func (s *State) Floor() (slowest Cursor, ok bool) {
	for _, c := range s.cursors {
		if c.Protects && (!ok || c.Next < slowest.Next || c.Next == slowest.Next && c.Name < slowest.Name) {
			slowest, ok = c, true
		}
	}
	return slowest, ok
}

// AllRead returns the number below which all cursors have acknowledged everything;
// ok is false if there is none.
func (s *State) AllRead() (below uint64, ok bool) {
	for _, c := range s.cursors {
		if !ok || c.Next < below {
			below, ok = c.Next, true
		}
	}
	return below, ok
}
