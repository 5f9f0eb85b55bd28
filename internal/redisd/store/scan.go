package store

import (
	"bytes"
	"math/rand/v2"

	"github.com/pastenet/paste/pmem/kv"
)

// maxCursors is how many scans can be under way; the oldest ones are forgotten.
const maxCursors = 4096

// cursors remembers where scans go on. A number stands for a key, as a cursor has
// to be one and keys are in order here.
type cursors struct {
	at   map[uint64][]byte
	next uint64
}

// put gives out the number that stands for a place.
func (c *cursors) put(key []byte) uint64 {
	if c.at == nil {
		c.at = map[uint64][]byte{}
		c.next = rand.Uint64N(1<<40) + 1 // those of a server that ran before mean nothing
	}
	c.next++
	c.at[c.next] = bytes.Clone(key)
	delete(c.at, c.next-maxCursors)
	return c.next
}

// Place returns what a cursor stands for; 0 is the beginning. ok is false for
// one that is not known, or not any more.
func (db *DB) Place(cursor uint64) (from []byte, ok bool) {
	if cursor == 0 {
		return nil, true
	}
	from, ok = db.cursors.at[cursor]
	return from, ok
}

// Cursor returns a number for a place.
func (db *DB) Cursor(from []byte) uint64 { return db.cursors.put(from) }

// Scan calls fn with up to n names (0: all) from a name on, and what each leads
// to, but for those that have expired. It returns where to go on, or nil at
// the end. fn must not use the DB.
func (db *DB) Scan(from []byte, n int, fn func(name []byte, it Item)) (next []byte) {
	seen := 0
	db.fail(db.kv.Ascend(append([]byte{'k'}, from...), func(key []byte, v *kv.Value) bool {
		if key[0] != 'k' {
			return false
		}
		if seen++; n > 0 && seen > n {
			next = bytes.Clone(key[1:])
			if len(next) == 0 {
				next = []byte{0} // cannot be: an empty name is the first
			}
			return false
		}
		if it := db.item(v); it.Kind != None && (it.At == 0 || it.At > db.Now) {
			fn(key[1:], it)
		}
		return true
	}))
	return next
}

// Random returns a name, or nil if there is none.
func (db *DB) Random() (name []byte) {
	for range 100 {
		name = nil
		found, err := db.kv.Pick([]byte{'k'}, []byte{'l'}, rand.IntN, func(key []byte, v *kv.Value) {
			if it := db.item(v); it.At == 0 || it.At > db.Now {
				name = append([]byte{}, key[1:]...)
			}
		})
		db.fail(err)
		if !found || name != nil || err != nil {
			return name
		}
	}
	return nil
}
