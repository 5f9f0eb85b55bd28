package store

import (
	"bytes"
	"math/rand/v2"

	"github.com/pastenet/paste/pmem/kv"
)

// A hash's value is, behind the head:
//
//	 0  object u64
//	 8  fields u64, how many there are

// HashRef is a hash that is there, or is to be made by the command that is being
// done.
type HashRef struct {
	name   []byte
	old    Item // head of the value as it was; its content is not looked at again
	object uint64
	n      uint64
	was    uint64
	fresh  bool
	value  kv.Value // of the field that was looked up last
}

// HashAt reads a hash that Find has returned, or prepares to make one under name.
func (db *DB) HashAt(name []byte, it Item) *HashRef {
	h := &db.hash
	h.name, h.old, h.object, h.fresh, h.n, h.was = name, Item{Kind: it.Kind, At: it.At}, 0, false, 0, 0
	if it.Kind == None {
		return h
	}
	b := it.rest(16)
	h.object, h.n = be.Uint64(b), be.Uint64(b[8:])
	h.was = h.n
	return h
}

// Len is the number of fields.
func (h *HashRef) Len() int { return int(h.n) }

// Field looks a field up; what it returns is valid until something is changed.
func (db *DB) Field(h *HashRef, field []byte) (value []byte, found bool) {
	if h.object == 0 || len(field) > MaxKey || db.err != nil {
		return nil, false
	}
	key := append(be.AppendUint64(append(db.lookup[:0], 'f'), h.object), field...)
	found, err := db.kv.Peek(key, &h.value)
	db.fail(err)
	if !found || err != nil {
		return nil, false
	}
	return db.whole(&h.value), true
}

// whole returns a value's bytes, in the pool where they lie in one piece.
func (db *DB) whole(v *kv.Value) []byte {
	switch len(v.Frags) {
	case 0:
		return v.Inline
	case 1:
		return db.piece(v.Frags[0])
	}
	return v.AppendTo(db.Pool(), nil)
}

func (h *HashRef) key(db *DB, prefix byte, part []byte) []byte {
	from := len(db.arena)
	db.arena = append(be.AppendUint64(append(db.arena, prefix), h.object), part...)
	return db.arena[from:len(db.arena):len(db.arena)]
}

// SetField stores a field; isNew says that it is not there, also not by an earlier
// change of this command.
func (db *DB) SetField(h *HashRef, field, value []byte, isNew bool) {
	if len(field) > MaxKey || len(h.name) > MaxKey {
		db.fail(ErrKeyTooLong)
		return
	}
	if h.object == 0 {
		h.object, h.fresh = db.newObject(), true
		db.delta.keys++
	}
	if isNew {
		h.n++
	}
	db.change(kv.Change{Key: h.key(db, 'f', field), Bytes: value})
}

// RemoveField removes a field that is there.
func (db *DB) RemoveField(h *HashRef, field []byte) {
	h.n--
	db.remove(h.key(db, 'f', field))
}

// HashDone notes what has become of a hash, after all changes of its fields.
func (db *DB) HashDone(h *HashRef) {
	if h.object == 0 || db.err != nil {
		return
	}
	db.Touch(h.name)
	switch {
	case h.n == 0:
		db.expireIndex(h.name, h.old.At, 0)
		db.remove(db.key('k', h.name))
		db.delta.keys--
	case h.fresh || h.n != h.was:
		key, from := db.key('k', h.name), len(db.arena)
		db.arena = appendHead(db.arena, Hash, 0, h.old.At)
		db.arena = be.AppendUint64(be.AppendUint64(db.arena, h.object), h.n)
		c := changePut(key)
		c.Head = db.arena[from:len(db.arena):len(db.arena)]
		db.change(c)
	}
}

// Fields calls fn with up to n fields (0: all) from one on, and the value of each.
// It returns where to go on, or nil at the end. fn must not use the DB.
func (db *DB) Fields(h *HashRef, from []byte, n int, fn func(field, value []byte)) (next []byte) {
	if h.object == 0 {
		return nil
	}
	prefix := be.AppendUint64([]byte{'f'}, h.object)
	seen := 0
	db.fail(db.kv.Ascend(append(bytes.Clone(prefix), from...), func(key []byte, v *kv.Value) bool {
		if !bytes.HasPrefix(key, prefix) {
			return false
		}
		if seen++; n > 0 && seen > n {
			next = append([]byte{}, key[9:]...)
			return false
		}
		fn(key[9:], db.whole(v))
		return true
	}))
	return next
}

// RandomField calls fn with a field and its value.
func (db *DB) RandomField(h *HashRef, fn func(field, value []byte)) {
	lo := be.AppendUint64([]byte{'f'}, h.object)
	hi := be.AppendUint64([]byte{'f'}, h.object+1)
	_, err := db.kv.Pick(lo, hi, rand.IntN, func(key []byte, v *kv.Value) { fn(key[9:], db.whole(v)) })
	db.fail(err)
}
