package store

import "bytes"

// Set stores a string under a name, in place of what was there, which is old (as
// Find has returned it last). at is when it expires, or 0.
func (db *DB) Set(name []byte, old Item, value []byte, at int64) {
	if len(name) > MaxKey {
		db.fail(ErrKeyTooLong)
		return
	}
	db.replace(name, old, at)
	db.set(name, value, at)
	db.Touch(name)
}

// replace notes what it means that a name gets a new value.
func (db *DB) replace(name []byte, old Item, at int64) {
	if old.Kind == None {
		db.delta.keys++
	} else {
		db.dropParts(old)
		if old.Kind == Stream {
			db.Signal(name) // as Delete does
		}
	}
	db.expireIndex(name, old.At, at)
}

// dropParts leaves an object's parts to be removed later.
func (db *DB) dropParts(it Item) {
	if it.Kind == Hash || it.Kind == Stream {
		db.change(changePut(db.key('d', it.rest(8)[:8])))
		db.delta.garbage++
	}
}

// expireIndex moves a name from one time to another; 0 is none.
func (db *DB) expireIndex(name []byte, from, to int64) {
	if from == to {
		return
	}
	if from != 0 {
		db.remove(db.key('e', be.AppendUint64(nil, uint64(from)), name))
		db.delta.expires--
	}
	if to != 0 {
		db.change(changePut(db.key('e', be.AppendUint64(nil, uint64(to)), name)))
		db.delta.expires++
	}
}

// Delete removes a name with its value it, which Find has returned last.
func (db *DB) Delete(name []byte, it Item) {
	if it.Kind == None {
		return
	}
	db.dropParts(it)
	db.expireIndex(name, it.At, 0)
	db.remove(db.key('k', name))
	db.delta.keys--
	db.Touch(name)
	if it.Kind == Stream {
		db.Signal(name) // who waits for a group's entries learns that there will be none
	}
}

// expired removes a name whose time has come, as a command of its own.
func (db *DB) expired(name []byte, it Item) {
	if len(db.changes) > 0 {
		return // a command has begun to change something; there is time
	}
	arena := db.arena
	db.Delete(bytes.Clone(name), it)
	if !db.Apply() && Full(db.err) {
		db.err = nil // it will be found once more
	}
	db.arena = arena
	db.Expired++
}

// SetExpiry changes when a name expires; 0 is never.
func (db *DB) SetExpiry(name []byte, it Item, at int64) {
	db.expireIndex(name, it.At, at)
	db.rewrite(name, it, at)
	db.Touch(name)
}

// rewrite stores a value under a name, with another time to expire.
func (db *DB) rewrite(name []byte, it Item, at int64) {
	flags := byte(0)
	if it.reply {
		flags = flagReply
	}
	key, from := db.key('k', name), len(db.arena)
	db.arena = appendHead(db.arena, it.Kind, flags, at)
	head := db.arena[from:len(db.arena):len(db.arena)]
	c := changePut(key)
	c.Head = head
	if len(it.v.Frags) == 0 {
		c.Bytes = bytes.Clone(it.head[it.skip:])
		db.change(c)
		return
	}
	b := make([]byte, 0, it.v.Size())
	skip := it.skip
	for _, f := range it.v.Frags {
		p := db.piece(f)
		k := min(skip, len(p))
		b = append(b, p[k:]...)
		skip -= k
	}
	c.Bytes = b
	db.change(c)
}

// Rename moves a value to another name, in place of what is there.
func (db *DB) Rename(from, to []byte) {
	if len(to) > MaxKey {
		db.fail(ErrKeyTooLong)
		return
	}
	old := db.Find(to)
	if bytes.Equal(from, to) {
		return
	}
	db.replace(to, old, 0)
	it := db.Find(from) // what was looked up last
	db.expireIndex(from, it.At, 0)
	db.expireIndex(to, 0, it.At)
	db.rewrite(to, it, it.At)
	db.remove(db.key('k', from))
	db.delta.keys--
	db.Touch(from)
	db.Touch(to)
}

// Clear removes everything.
func (db *DB) Clear() {
	for name := range db.watched {
		if db.Find([]byte(name)).Kind != None {
			db.Touch([]byte(name))
		}
	}
	if db.err != nil {
		return
	}
	if err := db.kv.Clear(); err != nil {
		db.fail(err)
		return
	}
	db.Dirty++
	db.keys, db.expires, db.garbage = 0, 0, 0
	for name := range db.waits {
		db.Signal([]byte(name)) // as Delete does
	}
}

// Usage is how many bytes of the pool a value takes, about.
func (db *DB) Usage(name []byte, it Item) int64 {
	const entry = 24 // of the tree
	n := int64(len(name)) + it.v.Size() + entry
	switch it.Kind {
	case Hash:
		db.Fields(db.HashAt(name, it), nil, 0, func(field, value []byte) { n += int64(len(field)+len(value)) + entry })
	case Stream:
		db.Entries(db.StreamAt(name, it), MinID, MaxID, false, func(_ ID, fields []byte) bool {
			n += int64(len(fields)) + entry + 25
			return true
		})
	}
	return n
}
