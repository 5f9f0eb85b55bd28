package intake

import (
	"fmt"
	"slices"
	"time"
)

// mark says by when the records below a number were there. Records have no times
// of their own.
type mark struct {
	seq uint64
	at  int64
}

// marksPerAge is how exactly records are dropped by age: to that part of it, or to
// a second.
const marksPerAge = 64

// MarkEvery is the least time between two marks.
func MarkEvery(age time.Duration) time.Duration { return max(age/marksPerAge, time.Second) }

// Mark notes that the records below next are there by now, unless there is a mark
// for them or the last one is younger than every.
func (s *State) Mark(next uint64, every time.Duration) error {
	if s.Marked(next) {
		return nil
	}
	now := s.o.Now().UnixNano()
	if n := len(s.marks); n > 0 {
		if since := now - s.marks[n-1].at; since >= 0 && since < int64(every) {
			return nil
		}
	}
	v := le.AppendUint64(nil, uint64(now))
	if err := s.put(s.numbered('t', next), v); err != nil {
		return fmt.Errorf("note the time of records: %w", err)
	}
	s.marks = append(s.marks, mark{next, now})
	return nil
}

// Marked reports whether there is a mark for all records below next.
func (s *State) Marked(next uint64) bool {
	n := len(s.marks)
	return n > 0 && s.marks[n-1].seq >= next
}

// Older returns the number below which all records are older than age; 0 if none
// is. Marks that say no more than that are dropped, and so are those of records
// below head, which are gone.
func (s *State) Older(age time.Duration, head uint64) (below uint64, err error) {
	limit, last := s.o.Now().Add(-age).UnixNano(), -1
	for i, m := range s.marks {
		if m.at <= limit {
			below, last = m.seq, i
		}
	}
	for i := 0; i < len(s.marks); {
		m := s.marks[i]
		if m.seq > head && i >= last {
			break
		}
		if err := s.delete(s.numbered('t', m.seq)); err != nil {
			return 0, fmt.Errorf("drop the time of records: %w", err)
		}
		s.marks = slices.Delete(s.marks, i, i+1)
		last--
	}
	return below, nil
}
