package kv

import "math"

// Sizes of the pieces in which Commit works on a checkpoint: some, and twice
// what the batch itself added, so that the work always ends.
const (
	nodesPerCommit   = 16
	recordsPerCommit = 64
)

// due reports whether a checkpoint should begin: when the log has grown long,
// or when it may hold a good part of the frames that could be free.
func (s *Store) due() bool {
	used := s.log.Used()
	return used >= s.o.Checkpoint || used > 64 && 2*used >= uint64(s.p.Free())
}

// work does a piece of what a checkpoint needs, after a batch of n changes.
func (s *Store) work(n int) error {
	switch {
	case s.cp != nil:
		return s.step(nodesPerCommit + 2*n)
	case s.trunc >= s.log.Head():
		return s.truncate(uint64(recordsPerCommit + 2*n))
	case s.tree.Tidy(4 * (recordsPerCommit + 2*n)):
		return nil
	case s.due():
		return s.begin()
	}
	return nil
}

// begin starts a checkpoint of everything that is committed.
func (s *Store) begin() error {
	// The tree must not become durable with a change whose record is not: its
	// number would be given out again.
	if err := s.commit(); err != nil {
		return err
	}
	s.tree.SetTag(s.seq)
	s.cpLog = s.log.Next() - 1
	s.stats.NodesOut += uint64(s.tree.Dirty())
	cp, err := s.tree.BeginCommit()
	if err != nil {
		return s.fail(err)
	}
	s.cp = cp
	return nil
}

func (s *Store) step(n int) error {
	done, err := s.cp.Step(n)
	if err != nil {
		return s.fail(err)
	}
	if done {
		s.cp = nil
		s.trunc = s.cpLog
		s.stats.Checkpoints++
	}
	return nil
}

// truncate drops up to n records that are in the durable tree.
func (s *Store) truncate(n uint64) error {
	head := s.log.Head()
	upTo := s.trunc
	if upTo-head >= n {
		upTo = head + n - 1
	}
	if err := s.log.Truncate(upTo); err != nil {
		return s.fail(err)
	}
	return nil
}

// checkpoint finishes the one under way, and makes one of all the rest.
func (s *Store) checkpoint() error {
	if err := s.commit(); err != nil {
		return err
	}
	for range 2 {
		if s.cp == nil {
			if err := s.begin(); err != nil {
				return err
			}
		}
		if err := s.step(math.MaxInt); err != nil {
			return err
		}
		if s.trunc >= s.log.Head() && s.log.Len() > 0 {
			if err := s.truncate(math.MaxUint64); err != nil {
				return err
			}
		}
		if s.cpLog == s.log.Next()-1 {
			break
		}
	}
	s.tree.Tidy(math.MaxInt)
	return nil
}
