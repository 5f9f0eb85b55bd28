package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/kv"
)

var be = binary.BigEndian

// Purpose is what a pool with a DB is for.
const Purpose = "redis"

// MaxKey is the length of the longest name, and of a hash's longest field, in
// bytes: a key of the pool has room for a byte and a number as well.
const MaxKey = kv.MaxKey - 9

// ErrKeyTooLong refuses a name or a field.
var ErrKeyTooLong = fmt.Errorf("keys and fields have at most %d bytes here", MaxKey)

// DB is the data of a server. Its methods are for whoever has locked it, unless
// they say something else.
type DB struct {
	sync.Mutex
	kv *kv.Store
	// Now is the time of the commands that are being done, in milliseconds since
	// 1970.
	Now int64
	// Fault is called with the name of what a command changes, for tests: what it
	// returns true for is not stored.
	Fault func(name []byte) bool

	keys    uint64 // names, also of what has expired and was not removed yet
	expires uint64 // of them, those that expire
	garbage int    // objects whose parts are to be removed

	changes []kv.Change       // of the command that is being done
	arena   []byte            // of their keys and heads
	delta   counts            // what they mean for keys and expires
	fresh   uint64            // objects made by them
	moved   map[string]uint64 // see taken
	err     error

	found  kv.Value // of the last lookup
	hash   HashRef
	lookup [kv.MaxKey + 1]byte
	Dirty  uint64 // changes since the server began

	Watches
	Blocked
	cursors cursors
}

type counts struct{ keys, expires, garbage int }

// Open opens the data in a pool, or begins with none.
func Open(p *pmem.Pool, verify bool) (*DB, error) {
	s, err := kv.Open(p, kv.Options{Verify: verify, Purpose: Purpose})
	if err != nil {
		return nil, err
	}
	db := &DB{kv: s, Now: time.Now().UnixMilli()}
	var n uint64
	for _, c := range []struct {
		prefix byte
		to     *uint64
	}{{'k', &db.keys}, {'e', &db.expires}, {'d', &n}} {
		if *c.to, err = s.Count([]byte{c.prefix}, []byte{c.prefix + 1}); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	db.garbage = int(n)
	return db, nil
}

// Close makes everything durable. The pool stays open.
func (db *DB) Close() error { return db.kv.Close() }

// Pool is where the data is.
func (db *DB) Pool() *pmem.Pool { return db.kv.Pool() }

// Stats may be called by anybody.
func (db *DB) Stats() kv.Stats { return db.kv.Stats() }

// Len is the number of names.
func (db *DB) Len() uint64 { return db.keys }

// Expires is how many of them expire.
func (db *DB) Expires() uint64 { return db.expires }

// key puts a key of the pool together in the arena.
func (db *DB) key(prefix byte, parts ...[]byte) []byte {
	from := len(db.arena)
	db.arena = append(db.arena, prefix)
	for _, p := range parts {
		db.arena = append(db.arena, p...)
	}
	return db.arena[from:len(db.arena):len(db.arena)]
}

func (db *DB) change(c kv.Change) { db.changes = append(db.changes, c) }

func (db *DB) remove(key []byte) { db.change(kv.Change{Key: key, Delete: true}) }

// Apply makes the changes of a command, all or none. It reports whether it could;
// why not is TakeErr's to say.
func (db *DB) Apply() bool {
	if db.err == nil && len(db.changes) > 0 {
		if err := db.kv.Apply(db.changes...); err != nil {
			db.err = err
		} else {
			db.Dirty++
			db.keys += uint64(db.delta.keys)
			db.expires += uint64(db.delta.expires)
			db.garbage += db.delta.garbage
		}
	}
	ok := db.err == nil
	clear(db.changes)
	clear(db.moved)
	db.changes, db.arena, db.delta, db.fresh = db.changes[:0], db.arena[:0], counts{}, 0
	if cap(db.arena) > 1<<20 {
		db.arena = nil
	}
	return ok
}

// fail notes an error, which the command that is being done ends with.
func (db *DB) fail(err error) {
	if err != nil && db.err == nil {
		db.err = err
	}
}

// Failed reports whether there is an error.
func (db *DB) Failed() bool { return db.err != nil }

// TakeErr returns the error of what was done since it was called last, if any.
func (db *DB) TakeErr() error {
	err := db.err
	db.err = nil
	return err
}

// Begin begins commands that belong together; End ends them.
func (db *DB) Begin() error { return db.kv.Begin() }

// End ends what Begin has begun.
func (db *DB) End() error { return db.kv.End() }

// Commit makes durable all that was applied.
func (db *DB) Commit() error { return db.kv.Commit() }

// MakeRoom frees buffers of the pool, and reports whether it could.
func (db *DB) MakeRoom() (bool, error) { return db.kv.MakeRoom() }

// newObject gives out a number.
func (db *DB) newObject() uint64 {
	db.fresh++
	return db.kv.Seq() + db.fresh
}

// Fail makes the command that is being done end with an error, if err is one.
func (db *DB) Fail(err error) { db.fail(err) }
