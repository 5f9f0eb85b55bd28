package raftkv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/pastenet/paste/pmem/kv"
)

// Purpose is what the store's pool is claimed for (kv.Options.Purpose).
const Purpose = "raft kv"

// Keys of the store: users' keys have dataPrefix in front.
const dataPrefix = 'd'

var (
	appliedKey   = []byte("m applied")   // index of the last entry, u64
	restoringKey = []byte("m restoring") // there while Restore is at work
)

// commitEvery is how many entries are applied before the store commits: they
// are in raft's log until then.
const commitEvery = 1024

// ErrRestore: the store is what an interrupted Restore left. It must be restored
// again, which raft does at its start unless it is told not to.
var ErrRestore = errors.New("a snapshot was not restored to its end")

var le = binary.LittleEndian

func dataKey(key []byte) []byte { return append([]byte{dataPrefix}, key...) }

// FSM is raft's state machine over a key-value store, which is its alone. Its
// methods may be called from any goroutine.
type FSM struct {
	store *kv.Store

	mu      sync.Mutex // held while the store is changed, or a snapshot reads it
	applied uint64
	staged  int // entries since the last commit
	snap    *snapshot
	changes []kv.Change
	failed  error
	broken  chan struct{} // closed when it fails
	breaks  sync.Once
	step    int // keys that a snapshot reads while changes wait
}

var (
	_ raft.FSM         = (*FSM)(nil)
	_ raft.BatchingFSM = (*FSM)(nil)
)

// NewFSM makes a state machine of a store, which it finds as an earlier one left it.
func NewFSM(store *kv.Store) (*FSM, error) {
	f := &FSM{store: store, broken: make(chan struct{}), step: 256}
	var v kv.Value
	found, err := store.Get(appliedKey, &v)
	if err != nil {
		return nil, fmt.Errorf("read the index of the last entry: %w", err)
	}
	if found {
		f.applied = le.Uint64(v.Inline)
	}
	_, torn, err := store.Has(restoringKey)
	if err != nil {
		return nil, fmt.Errorf("look for an interrupted restore: %w", err)
	}
	if torn {
		f.failed = ErrRestore
	}
	return f, nil
}

// Applied is the index of the last entry whose changes are in the store, 0 if
// it must be restored from a snapshot. It says whether raft has to do that at
// its start (raft.Config.NoSnapshotRestoreOnStart): if it is smaller than the
// last snapshot's.
func (f *FSM) Applied() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil {
		return 0
	}
	return f.applied
}

// Broken is closed when an entry cannot be applied here, as when the pool is
// full; Err says why. Such a node must not go on: it would be another store than
// the others.
func (f *FSM) Broken() <-chan struct{} { return f.broken }

// Err returns why nothing can be applied or read, or nil.
func (f *FSM) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

func (f *FSM) fail(err error) error {
	if f.failed == nil {
		f.failed = fmt.Errorf("replicated store failed: %w", err)
		f.breaks.Do(func() { close(f.broken) })
	}
	return f.failed
}

// Get appends the value of key to b. It is that of the last entry that was
// applied here: whether that is the last one there is, raft knows
// (VerifyLeader, Barrier).
func (f *FSM) Get(b, key []byte) (value []byte, found bool, err error) {
	if err := f.Err(); err != nil {
		return b, false, err
	}
	var v kv.Value
	if found, err = f.store.Get(dataKey(key), &v); !found || err != nil {
		return b, false, err
	}
	defer f.store.Release(&v)
	pool := f.store.Pool()
	err = pool.Guard(func() error { b = v.AppendTo(pool, b); return nil })
	return b, err == nil, err
}

// Apply makes the changes of one entry. What it returns is nil or an error.
func (f *FSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch makes the changes of several entries, in one group.
func (f *FSM) ApplyBatch(logs []*raft.Log) []any {
	f.mu.Lock()
	defer f.mu.Unlock()
	results := make([]any, len(logs))
	err := f.apply(logs, results)
	for i := range results {
		if err != nil {
			results[i] = err
		}
	}
	return results
}

func (f *FSM) apply(logs []*raft.Log, results []any) error {
	if f.failed != nil {
		return f.failed
	}
	f.changes = f.changes[:0]
	last := f.applied
	for i, l := range logs {
		if l.Type != raft.LogCommand || l.Index <= f.applied {
			continue // the store had it before it was opened
		}
		changes, err := parse(l.Data, f.changes)
		if err != nil {
			// All nodes leave out the same. A later version would rather stop.
			results[i] = fmt.Errorf("entry %d: %w", l.Index, err)
			continue
		}
		f.changes, last = changes, l.Index
		f.staged++
	}
	if last == f.applied {
		return nil
	}
	for i := range f.changes {
		if err := f.snap.save(f.store, f.changes[i].Key); err != nil {
			return f.fail(err)
		}
	}
	f.changes = append(f.changes, appliedTo(last))
	if err := f.store.Apply(f.changes...); err != nil {
		return f.fail(err)
	}
	f.applied = last
	if f.staged >= commitEvery {
		return f.commit()
	}
	return nil
}

func appliedTo(index uint64) kv.Change {
	return kv.Change{Key: appliedKey, Bytes: le.AppendUint64(nil, index)}
}

func (f *FSM) commit() error {
	if err := f.store.Commit(); err != nil {
		return f.fail(err)
	}
	f.staged = 0
	return nil
}
