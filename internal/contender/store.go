package contender

import (
	"errors"
	"fmt"

	"github.com/pastenet/paste/pmem"
)

// store is the log with the policy that a full one drops its older half.
// Not safe for concurrent use.
type store struct {
	pool   *pmem.Pool // nil: bodies are forgotten
	stats  *Stats
	staged bool
}

func (s *store) appendCopy(body []byte) error {
	if s.pool == nil {
		return nil
	}
	return s.retry(func() error { _, err := s.pool.Log().AppendCopy(body); return err })
}

// appendPiece appends a body that comes in parts, collected in body; one that is in one
// part goes straight into the log.
func (s *store) appendPiece(body *[]byte, p []byte, last bool) error {
	if len(*body) == 0 && last {
		return s.appendCopy(p)
	}
	*body = append(*body, p...)
	if !last {
		return nil
	}
	err := s.appendCopy(*body)
	if cap(*body) > 1<<20 {
		*body = nil
	}
	*body = (*body)[:0]
	return err
}

func (s *store) appendFrames(frags []pmem.Fragment) error {
	return s.retry(func() error { _, err := s.pool.Log().Append(frags, true); return err })
}

func (s *store) retry(do func() error) error {
	err := do()
	for errors.Is(err, pmem.ErrFull) && s.halve() == nil {
		err = do()
	}
	if err == nil {
		s.staged = true
	}
	return err
}

// halve makes room by dropping the older half of the log.
func (s *store) halve() error {
	if err := s.commit(); err != nil {
		return err
	}
	log := s.pool.Log()
	n := log.Len()
	if n == 0 {
		return pmem.ErrFull
	}
	s.stats.Truncate.Add(1)
	if err := log.Truncate(log.Head() + uint64((n-1)/2)); err != nil {
		return fmt.Errorf("make room in the log: %w", err)
	}
	return nil
}

// commit makes everything that was appended durable.
func (s *store) commit() error {
	if !s.staged {
		return nil
	}
	s.staged = false
	return s.pool.Log().Commit()
}
