package store

import (
	"bytes"
	"math"
	"strconv"

	"github.com/pastenet/paste/pmem/kv"
)

// ID names a stream's entry. IDs are in order of time.
type ID struct{ MS, Seq uint64 }

// The first and the last ID that can be.
var (
	MinID = ID{}
	MaxID = ID{math.MaxUint64, math.MaxUint64}
)

// Less reports whether id comes before o.
func (id ID) Less(o ID) bool { return id.MS < o.MS || id.MS == o.MS && id.Seq < o.Seq }

// Next is the ID after id; ok is false for the last one.
func (id ID) Next() (_ ID, ok bool) {
	switch {
	case id.Seq < math.MaxUint64:
		return ID{id.MS, id.Seq + 1}, true
	case id.MS < math.MaxUint64:
		return ID{id.MS + 1, 0}, true
	}
	return id, false
}

// Prev is the ID before id; ok is false for the first one.
func (id ID) Prev() (_ ID, ok bool) {
	switch {
	case id.Seq > 0:
		return ID{id.MS, id.Seq - 1}, true
	case id.MS > 0:
		return ID{id.MS - 1, math.MaxUint64}, true
	}
	return id, false
}

// Append renders the ID.
func (id ID) Append(b []byte) []byte {
	b = append(strconv.AppendUint(b, id.MS, 10), '-')
	return strconv.AppendUint(b, id.Seq, 10)
}

func (id ID) put(b []byte) []byte { return be.AppendUint64(be.AppendUint64(b, id.MS), id.Seq) }

func getID(b []byte) ID { return ID{be.Uint64(b), be.Uint64(b[8:])} }

// A stream's value is, behind the head:
//
//	 0  object u64
//	 8  length u64
//	16  last ID
//	32  largest ID that was deleted
//	48  added u64, entries ever
const streamLen = 56

// StreamRef is a stream that is there, or is to be made by the command that is
// being done. What is changed in it is stored by StreamDone.
type StreamRef struct {
	Name    []byte
	Object  uint64
	Length  uint64
	Last    ID
	Deleted ID // the largest that was
	Added   uint64

	at    int64
	fresh bool
}

// StreamAt reads a stream that Find has returned, or prepares to make one.
func (db *DB) StreamAt(name []byte, it Item) *StreamRef {
	s := &StreamRef{Name: name, at: it.At}
	if it.Kind == None {
		return s
	}
	b := it.rest(streamLen)
	s.Object, s.Length = be.Uint64(b), be.Uint64(b[8:])
	s.Last, s.Deleted, s.Added = getID(b[16:]), getID(b[32:]), be.Uint64(b[48:])
	return s
}

func (db *DB) streamKey(prefix byte, object uint64, id ID) []byte {
	from := len(db.arena)
	db.arena = id.put(be.AppendUint64(append(db.arena, prefix), object))
	return db.arena[from:len(db.arena):len(db.arena)]
}

// MakeStream gives a stream that is to be made its number.
func (db *DB) MakeStream(s *StreamRef) {
	if s.Object != 0 {
		return
	}
	if len(s.Name) > MaxKey {
		db.fail(ErrKeyTooLong)
		return
	}
	s.Object, s.fresh = db.newObject(), true
	db.delta.keys++
}

// Add appends an entry; fields is the array that a reply has it as.
func (db *DB) Add(s *StreamRef, id ID, fields []byte) {
	db.MakeStream(s)
	s.Last = id
	s.Length++
	s.Added++
	if db.Fault != nil && db.Fault(s.Name) {
		return
	}
	db.change(kv.Change{Key: db.streamKey('s', s.Object, id), Bytes: fields})
}

// StreamDone stores what has become of a stream.
func (db *DB) StreamDone(s *StreamRef) {
	if db.err != nil || s.Object == 0 {
		return
	}
	key, from := db.key('k', s.Name), len(db.arena)
	b := appendHead(db.arena, Stream, 0, s.at)
	b = be.AppendUint64(be.AppendUint64(b, s.Object), s.Length)
	b = be.AppendUint64(s.Deleted.put(s.Last.put(b)), s.Added)
	db.arena = b
	c := changePut(key)
	c.Bytes = db.arena[from:len(db.arena):len(db.arena)]
	db.change(c)
	db.Touch(s.Name)
}

// Entries calls fn with the entries from one ID up to another, in order or
// backwards, until it returns false. Changes of the command that is being done are
// not seen. fn must not use the DB.
func (db *DB) Entries(s *StreamRef, from, to ID, back bool, fn func(id ID, fields []byte) bool) {
	if s.Object == 0 || s.fresh || to.Less(from) || db.err != nil {
		return
	}
	prefix := be.AppendUint64([]byte{'s'}, s.Object)
	walk, start := db.kv.Ascend, from
	if back {
		walk, start = db.kv.Descend, to
	}
	db.fail(walk(start.put(bytes.Clone(prefix)), func(key []byte, v *kv.Value) bool {
		if len(key) != 25 || !bytes.HasPrefix(key, prefix) {
			return false
		}
		id := getID(key[9:])
		if back && id.Less(from) || !back && to.Less(id) {
			return false
		}
		return fn(id, db.whole(v))
	}))
}

// Entry calls fn with one entry, and reports whether it is there.
func (db *DB) Entry(s *StreamRef, id ID, fn func(fields []byte)) (found bool) {
	db.Entries(s, id, id, false, func(_ ID, fields []byte) bool {
		found = true
		fn(fields)
		return false
	})
	return found
}

// First returns the ID of the first entry.
func (db *DB) First(s *StreamRef) (first ID, ok bool) {
	db.Entries(s, MinID, MaxID, false, func(id ID, _ []byte) bool {
		first, ok = id, true
		return false
	})
	return first, ok
}

// RemoveEntry removes an entry that is there.
func (db *DB) RemoveEntry(s *StreamRef, id ID) {
	s.Length--
	db.remove(db.streamKey('s', s.Object, id))
}

// Trim removes entries from the front: what exceeds keep entries, or comes before
// min. That leaves no gap, so Deleted stays as it is. added is how many entries the command itself has appended; they are not
// seen by Entries. At most limit are removed, if that is not 0.
func (db *DB) Trim(s *StreamRef, keep uint64, min ID, byID bool, added uint64, limit int) (removed int) {
	if !byID && s.Length <= keep {
		return 0
	}
	var list []ID
	db.Entries(s, MinID, MaxID, false, func(id ID, _ []byte) bool {
		if byID && !id.Less(min) || !byID && s.Length-uint64(len(list)) <= keep || limit > 0 && len(list) == limit {
			return false
		}
		list = append(list, id)
		return true
	})
	for _, id := range list {
		db.RemoveEntry(s, id)
	}
	if added > 0 && (limit == 0 || len(list) < limit) && (byID && s.Last.Less(min) || !byID && s.Length > keep) {
		db.RemoveEntry(s, s.Last) // the new one goes as well
		list = append(list, s.Last)
	}
	return len(list)
}

// LastEntry returns the ID of the last entry that is there.
func (db *DB) LastEntry(s *StreamRef) (last ID, ok bool) {
	db.Entries(s, MinID, MaxID, true, func(id ID, _ []byte) bool {
		last, ok = id, true
		return false
	})
	return last, ok
}
