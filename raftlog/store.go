package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/pastenet/paste/pmem"
)

// Purpose is what a store claims its pool for (pmem.Pool.Claim).
const Purpose = "raft log"

const baseRoot = "raft.base"

var le = binary.LittleEndian

// ErrOrder: entries that do not follow each other, or a range to delete that
// would leave a hole.
var ErrOrder = errors.New("raft log without holes")

// Store is raft's log and its stable values in a pool. Its methods may be called
// from any goroutine.
type Store struct {
	p   *pmem.Pool
	log *pmem.Log

	// write is held by whoever changes the log; taken before trim.
	write sync.Mutex
	packer

	// trim is held by readers, and by whoever deletes what they may be reading.
	trim sync.RWMutex
	base base

	stable sync.Mutex // held by whoever changes a stable value
}

var (
	_ raft.LogStore          = (*Store)(nil)
	_ raft.StableStore       = (*Store)(nil)
	_ raft.MonotonicLogStore = (*Store)(nil)
)

// base says that raft's entry index is in record seq; so it is for all others.
type base struct{ seq, index uint64 }

func (b base) record(index uint64) uint64 { return b.seq + (index - b.index) }
func (b base) entry(seq uint64) uint64    { return b.index + (seq - b.seq) }

// Open opens the store in p, or makes an empty one. Nobody else may use the
// pool's log: a pool that is for something else gets pmem.ErrPurpose. The pool
// stays the caller's, to be closed after the store.
func Open(p *pmem.Pool) (*Store, error) {
	s, err := open(p)
	if err != nil {
		return nil, fmt.Errorf("open raft log: %w", err)
	}
	return s, nil
}

func open(p *pmem.Pool) (*Store, error) {
	if p.Version() < 4 {
		return nil, fmt.Errorf("%w: the pool has version %d, and a raft log needs 4; dump it and restore it into a new pool, or name another file", pmem.ErrVersion, p.Version())
	}
	if p.Purpose() == "" && (p.Log().Len() > 0 || p.Log().Next() > 1) {
		return nil, fmt.Errorf("%w: its log is in use, and not by raft; name another file", pmem.ErrPurpose)
	}
	if err := p.Claim(Purpose); err != nil {
		return nil, err
	}
	s := &Store{p: p, log: p.Log(), packer: packer{p: p}, base: base{1, 1}}
	if r, ok := p.Root(baseRoot); ok {
		s.base = base{le.Uint64(r.Value[:]), le.Uint64(r.Value[8:])}
	}
	return s, nil
}

// Close gives back the memory that the store holds besides its content.
func (s *Store) Close() error {
	s.write.Lock()
	defer s.write.Unlock()
	s.packer.close()
	return nil
}

// IsMonotonic tells raft that the store holds no gaps.
func (s *Store) IsMonotonic() bool { return true }

// FirstIndex returns the index of the oldest entry, 0 if there is none.
func (s *Store) FirstIndex() (uint64, error) {
	s.trim.RLock()
	defer s.trim.RUnlock()
	first, _ := s.indices()
	return first, nil
}

// LastIndex returns the index of the last entry, 0 if there is none.
func (s *Store) LastIndex() (uint64, error) {
	s.trim.RLock()
	defer s.trim.RUnlock()
	_, last := s.indices()
	return last, nil
}

// indices returns those of the first and the last entry, both 0 if there is none.
func (s *Store) indices() (first, last uint64) {
	if s.log.Len() == 0 {
		return 0, 0
	}
	return s.base.entry(s.log.Head()), s.base.entry(s.log.Committed() - 1)
}

// StoreLog is StoreLogs of one entry.
func (s *Store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs appends entries, whose indices must follow each other and the last
// one that is stored (ErrOrder); behind an empty log any may come. They are
// durable when it returns nil; otherwise none of them was stored, unless the
// pool has failed (pmem.ErrIO). pmem.ErrFull when the pool has no room for them.
func (s *Store) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	s.write.Lock()
	defer s.write.Unlock()
	if err := s.storeLogs(logs); err != nil {
		return fmt.Errorf("store raft entries %d to %d: %w", logs[0].Index, logs[len(logs)-1].Index, err)
	}
	return nil
}

func (s *Store) storeLogs(logs []*raft.Log) error {
	if err := s.follows(logs); err != nil {
		return err
	}
	err := s.p.Guard(func() error {
		for _, l := range logs {
			if err := s.append(l); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, s.log.Discard())
	}
	return s.log.Commit()
}

// follows checks the indices, and begins anew with the first one if the log is empty.
func (s *Store) follows(logs []*raft.Log) error {
	for i, l := range logs[1:] {
		if l.Index != logs[i].Index+1 {
			return fmt.Errorf("%w: entry %d comes behind entry %d", ErrOrder, l.Index, logs[i].Index)
		}
	}
	first := logs[0].Index
	if s.log.Len() > 0 {
		if _, last := s.indices(); first != last+1 {
			return fmt.Errorf("%w: the last entry is %d", ErrOrder, last)
		}
		return nil
	}
	seq := s.log.Next()
	if first == s.base.entry(seq) {
		return nil
	}
	b := base{seq, first}
	var r pmem.Root
	le.PutUint64(r.Value[:], b.seq)
	le.PutUint64(r.Value[8:], b.index)
	if err := s.p.SetRoot(baseRoot, r); err != nil {
		return err
	}
	s.trim.Lock()
	defer s.trim.Unlock()
	s.base = b
	return nil
}

func (s *Store) append(l *raft.Log) error {
	header, err := encodeHeader(l)
	if err != nil {
		return err
	}
	frags, err := s.place(l.Extensions, l.Data)
	defer s.placed()
	if err != nil {
		return err
	}
	_, err = s.log.AppendHeader(header[:], frags, true)
	return err
}

// DeleteRange deletes the entries from one index to another, of which one must be the
// first or the last that there is: ErrOrder if a hole would be left.
func (s *Store) DeleteRange(from, to uint64) error {
	s.write.Lock()
	defer s.write.Unlock()
	s.trim.Lock()
	defer s.trim.Unlock()
	first, last := s.indices()
	var err error
	switch {
	case first == 0 || from > to || to < first || from > last: // nothing of it is there
	case from <= first:
		err = s.log.Truncate(s.base.record(min(to, last)))
	case to >= last:
		err = s.log.TruncateAfter(s.base.record(from) - 1)
	default:
		err = fmt.Errorf("%w: there are %d to %d", ErrOrder, first, last)
	}
	if err != nil {
		return fmt.Errorf("delete raft entries %d to %d: %w", from, to, err)
	}
	return nil
}
