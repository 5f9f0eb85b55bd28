package kv

import (
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/btree"
)

// Limits of a store.
const (
	MaxKey = btree.MaxKey
	// RootName is the name of the store's tree in the pool.
	RootName = "kv"
	// Purpose is what a store claims its pool for (pmem.Pool.Claim).
	Purpose = "kv"
)

// Errors on which callers decide, besides those of pmem.
var (
	ErrKeyTooLong   = btree.ErrKeyTooLong
	ErrValueTooLong = btree.ErrValueTooLong
	// ErrForeign: the pool's log is somebody else's.
	ErrForeign = errors.New("the pool's log holds records that are not a key-value store's")
)

// Value is what a key leads to, see btree.Value.
type Value = btree.Value

// Options of a store.
type Options struct {
	// Verify makes Get compare values with their checksums.
	Verify bool
	// Checkpoint is the number of log entries from which on a checkpoint is
	// made; 0 means a quarter of the log, at most 16384.
	Checkpoint uint64
	// Reserve is how many frames are kept for Delete when the pool is full; 0
	// means btree.DefaultReserve.
	Reserve int
	// Purpose is what the pool is claimed for, by who gives keys and values a
	// meaning of their own; "" means Purpose.
	Purpose string
}

// Stats counts since Open.
type Stats struct {
	Keys        uint64 `json:"keys"`
	Puts        uint64 `json:"puts"`
	Deletes     uint64 `json:"deletes"`
	Commits     uint64 `json:"commits"`
	Checkpoints uint64 `json:"checkpoints"`
	NodesOut    uint64 `json:"nodes_written"` // frames written by checkpoints
	Stalls      uint64 `json:"stalls"`        // checkpoints that had to be finished at once for want of room
	Replayed    uint64 `json:"replayed"`      // log records applied by Open
}

// Store is a key-value store. Its methods may be called from any goroutine.
// A pool has room for one.
type Store struct {
	mu     sync.RWMutex
	p      *pmem.Pool
	log    *pmem.Log
	tree   *btree.Tree
	o      Options
	seq    uint64 // number of the last change
	group  bool   // Begin was called, and End was not
	before uint64 // seq at Begin
	staged int    // records since the last Commit
	failed error

	packing
	frags    []pmem.Fragment // of a record
	sums     []uint32        // of these, where packValue has taken them
	small    [btree.MaxInline]byte
	smallVal Value

	cp    *btree.Commit // checkpoint under way
	cpLog uint64        // last log record whose change is in it
	trunc uint64        // the log can be truncated up to here

	stats Stats
}

// packing is where record heads and small values are put.
type packing struct {
	pack   uint32   // frame; 0: none
	packed int      // bytes of it that are used
	ahead  []uint32 // frames for what is to succeed
	spare  []uint32 // frames for Delete
	passed []uint32 // held until a value that goes on in another frame is referred to
}

// Open opens the store in p, or makes an empty one. The pool's log must not be
// used by anybody else: a pool that is for something else gets pmem.ErrPurpose,
// and ErrForeign if only its log tells.
func Open(p *pmem.Pool, o Options) (*Store, error) {
	var s *Store
	err := p.Guard(func() (err error) {
		s, err = open(p, o)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open key-value store: %w", err)
	}
	return s, nil
}

func open(p *pmem.Pool, o Options) (*Store, error) {
	if o.Checkpoint == 0 {
		o.Checkpoint = min(p.LogEntries()/4, 16384)
	}
	if o.Reserve == 0 {
		o.Reserve = btree.DefaultReserve
	}
	if o.Purpose == "" {
		o.Purpose = Purpose
	}
	if is := p.Purpose(); is != "" && is != o.Purpose {
		return nil, p.Claim(o.Purpose) // which says what it is for
	}
	s := &Store{p: p, log: p.Log(), o: o}
	for r, err := range s.log.Records() {
		if err != nil {
			return nil, err
		}
		if _, err := parseRecord(p, &r); err != nil {
			return nil, err
		}
		break // one tells whose log it is
	}
	err := p.Claim(o.Purpose)
	if err != nil {
		return nil, err
	}
	if s.tree, err = btree.OpenOrCreate(p, RootName, btree.Options{Reserve: o.Reserve}); err != nil {
		return nil, err
	}
	s.seq = s.tree.Tag()
	if err := s.replay(); err != nil {
		s.tree.Close()
		return nil, err
	}
	s.fillSpare()
	return s, nil
}

// Pool is where the store lives.
func (s *Store) Pool() *pmem.Pool { return s.p }

// Close commits, makes a checkpoint, and gives back what the store holds
// besides its content. The pool stays open.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		if errors.Is(s.failed, pmem.ErrClosed) {
			return nil
		}
		return s.failed
	}
	err := s.checkpoint()
	s.tree.Close()
	s.p.UnrefAll(s.spare)
	s.spare = nil
	s.dropPack()
	s.failed = pmem.ErrClosed
	return err
}

// Seq is the number of the last change. It only grows, and no other change that
// can be found later has it.
func (s *Store) Seq() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.seq
}

// Stats may be called from any goroutine.
func (s *Store) Stats() Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := s.stats
	st.Keys = s.tree.Len()
	return st
}

// Get looks key up and reads its value into v, whose Frags are used again. For
// the caller it takes a reference to the frame of every fragment, which
// Release gives up; an inline value is copied. With Options.Verify a value
// that is not what was put is pmem.ErrChecksum.
func (s *Store) Get(key []byte, v *Value) (found bool, err error) {
	if found, err = s.get(key, v); err != nil || !found {
		return false, err
	}
	if s.o.Verify {
		if err := v.Verify(s.p); err != nil {
			s.Release(v)
			return false, fmt.Errorf("get %q: %w", key, err)
		}
	}
	return true, nil
}

func (s *Store) get(key []byte, v *Value) (found bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if found, err = s.tree.Get(key, v); err != nil || !found {
		return false, err
	}
	for _, f := range v.Frags {
		s.p.Ref(f.Frame)
	}
	if len(v.Frags) > 0 {
		return true, nil
	}
	err = s.p.Guard(func() error {
		v.Inline = append([]byte(nil), v.Inline...)
		return nil
	})
	return err == nil, err
}

// Release gives up the references that Get took.
func (s *Store) Release(v *Value) {
	for _, f := range v.Frags {
		s.p.Unref(f.Frame)
	}
	v.Frags = v.Frags[:0]
}

// Has reports whether there is a value under key, and its size in bytes.
func (s *Store) Has(key []byte) (size int64, found bool, err error) {
	var v Value
	s.mu.RLock()
	defer s.mu.RUnlock()
	found, err = s.tree.Get(key, &v)
	if found {
		size = v.Size()
	}
	return size, found, err
}

// Scan calls fn with up to limit keys (0: all of them) that begin with prefix
// and are not smaller than from, in order, until fn returns false. The key is
// valid within the call; fn must not call the store.
func (s *Store) Scan(prefix, from []byte, limit int, fn func(key []byte) bool) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if string(from) < string(prefix) {
		from = prefix
	}
	n := 0
	return s.tree.Ascend(from, func(e btree.Entry) bool {
		k := e.Key()
		if len(k) < len(prefix) || string(k[:len(prefix)]) != string(prefix) || !fn(k) {
			return false
		}
		n++
		return n != limit
	})
}

// Len is the number of keys.
func (s *Store) Len() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.tree.Len()
}

// Commit makes all changes so far durable, and does a piece of the work on a
// checkpoint. After an error that wraps pmem.ErrIO the store is of no use any
// more: open the pool again.
func (s *Store) Commit() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return fmt.Errorf("commit: %w", s.failed)
	}
	n := s.staged
	if err := s.commit(); err != nil {
		return err
	}
	return s.work(n)
}

func (s *Store) commit() error {
	if s.staged == 0 {
		return nil
	}
	if err := s.log.Commit(); err != nil {
		return s.fail(err)
	}
	s.staged = 0
	s.stats.Commits++
	return nil
}

func (s *Store) fail(err error) error {
	if s.failed == nil {
		s.failed = fmt.Errorf("key-value store failed: %w", err)
	}
	return s.failed
}

// Checkpoint brings everything into the tree and empties the log.
func (s *Store) Checkpoint() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return fmt.Errorf("checkpoint: %w", s.failed)
	}
	return s.checkpoint()
}

// MakeRoom gives back the frames that only the log still needs, and reports
// whether there were any. It stops everything for as long as a checkpoint
// takes: it is for when the pool is full.
func (s *Store) MakeRoom() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return false, s.failed
	}
	return s.makeRoom()
}

func (s *Store) makeRoom() (bool, error) {
	before := s.p.Free()
	s.tree.Tidy(math.MaxInt)
	if s.log.Used() == 0 || s.group {
		return s.p.Free() > before, nil
	}
	s.stats.Stalls++
	if err := s.checkpoint(); err != nil {
		return false, err
	}
	s.fillSpare()
	return s.p.Free() > before, nil
}
