package store

import (
	"bytes"

	"github.com/pastenet/paste/pmem/kv"
)

// changePut is a change that stores something, or at first nothing, under a key.
func changePut(key []byte) kv.Change { return kv.Change{Key: key} }

// cronStep is how many names, or parts of objects, one step removes at most.
const cronStep = 64

// Cron removes some of what has expired, and of what is left of removed objects.
// It reports whether there may be more.
func (db *DB) Cron() (more bool) {
	if db.expires > 0 && db.expireSome() {
		more = true
	}
	if db.garbage > 0 && db.sweepSome() {
		more = true
	}
	return more
}

// Idle reports whether Cron has nothing to do for now, and nothing that comes.
func (db *DB) Idle() bool { return db.expires == 0 && db.garbage == 0 }

func (db *DB) expireSome() (more bool) {
	var due [][]byte
	err := db.kv.Ascend([]byte{'e'}, func(key []byte, _ *kv.Value) bool {
		if key[0] != 'e' || len(key) < 9 || int64(be.Uint64(key[1:])) > db.Now {
			return false
		}
		due = append(due, bytes.Clone(key))
		return len(due) < cronStep
	})
	db.fail(err)
	for _, key := range due {
		if db.err != nil {
			break
		}
		name := key[9:]
		if it := db.peek(name); it.Kind != None && uint64(it.At) == be.Uint64(key[1:]) {
			db.expired(name, it)
			continue
		}
		db.remove(key) // it leads to nothing
		db.delta.expires--
		db.Apply()
	}
	return len(due) == cronStep && db.err == nil
}

// sweepSome removes parts of one object that is gone.
func (db *DB) sweepSome() (more bool) {
	var mark []byte
	db.fail(db.kv.Ascend([]byte{'d'}, func(key []byte, _ *kv.Value) bool {
		if key[0] == 'd' {
			mark = bytes.Clone(key)
		}
		return false
	}))
	if db.err != nil {
		return false
	}
	if len(mark) != 9 {
		db.garbage = 0
		return false
	}
	n := 0
	for _, prefix := range []byte("fsgcp") {
		from := append([]byte{prefix}, mark[1:]...)
		db.fail(db.kv.Ascend(from, func(key []byte, _ *kv.Value) bool {
			if !bytes.HasPrefix(key, from) || n == cronStep {
				return false
			}
			db.remove(db.key(key[0], key[1:]))
			n++
			return true
		}))
		if n == cronStep {
			break
		}
	}
	if n < cronStep {
		db.remove(mark)
		db.delta.garbage--
	}
	return db.Apply() && db.garbage > 0
}
