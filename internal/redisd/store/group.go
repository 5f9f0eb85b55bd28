package store

import (
	"bytes"

	"github.com/pastenet/paste/pmem/kv"
)

// A group's value is
//
//	 0  number u64, of the group
//	 8  last ID that was delivered
//	24  read i64, entries that were delivered, or -1 if that is not known
//	32  pending u64, entries that were not acknowledged
//
// that of a consumer
//
//	 0  seen i64, when it has asked last
//	 8  pending u64
//
// and that of an entry that was not acknowledged
//
//	 0  time i64, of its last delivery
//	 8  count u64, of deliveries
//	16  the consumer's name

// Group is a consumer group.
type Group struct {
	Stream  uint64 // object
	Name    []byte
	Number  uint64
	Last    ID
	Read    int64
	Pending uint64
}

// Consumer is one of a group's.
type Consumer struct {
	Name    []byte
	Seen    int64
	Pending uint64
	Fresh   bool // it is not stored yet
}

// Pending is an entry that a consumer has not acknowledged.
type Pending struct {
	ID       ID
	Time     int64
	Count    uint64
	Consumer []byte
}

func readGroup(object uint64, name, b []byte) *Group {
	if len(b) < 40 {
		return nil
	}
	return &Group{object, bytes.Clone(name), be.Uint64(b), getID(b[8:]), int64(be.Uint64(b[24:])), be.Uint64(b[32:])}
}

// peekAt returns a copy of what is under a key.
func (db *DB) peekAt(key []byte) []byte {
	if db.err != nil || len(key) > kv.MaxKey {
		return nil
	}
	found, err := db.kv.Peek(key, &db.hash.value)
	db.fail(err)
	if !found || err != nil {
		return nil
	}
	return bytes.Clone(db.whole(&db.hash.value))
}

func objectKey(prefix byte, n uint64, parts ...[]byte) []byte {
	b := be.AppendUint64([]byte{prefix}, n)
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// GroupOf returns a stream's group, or nil.
func (db *DB) GroupOf(s *StreamRef, name []byte) *Group {
	if s.Object == 0 {
		return nil
	}
	return readGroup(s.Object, name, db.peekAt(objectKey('g', s.Object, name)))
}

// Groups lists a stream's groups.
func (db *DB) Groups(s *StreamRef) (list []*Group) {
	db.under(objectKey('g', s.Object), func(rest, b []byte) bool {
		if g := readGroup(s.Object, rest, b); g != nil {
			list = append(list, g)
		}
		return true
	})
	return list
}

// under calls fn with what follows prefix in each key that begins with it, and the
// value, until fn returns false.
func (db *DB) under(prefix []byte, fn func(rest, b []byte) bool) {
	db.fail(db.kv.Ascend(prefix, func(key []byte, v *kv.Value) bool {
		return bytes.HasPrefix(key, prefix) && fn(key[len(prefix):], db.whole(v))
	}))
}

// PutGroup stores a group; one without a number is given one.
func (db *DB) PutGroup(g *Group) {
	if len(g.Name) > MaxKey-8 {
		db.fail(ErrKeyTooLong)
		return
	}
	if g.Number == 0 {
		g.Number = db.newObject()
	}
	b := g.Last.put(be.AppendUint64(nil, g.Number))
	b = be.AppendUint64(be.AppendUint64(b, uint64(g.Read)), g.Pending)
	db.change(kv.Change{Key: objectKey('g', g.Stream, g.Name), Bytes: b})
}

// RemoveGroup removes a group with all that belongs to it.
func (db *DB) RemoveGroup(g *Group) {
	number := be.AppendUint64(nil, g.Number)
	for _, prefix := range []byte("cp") {
		db.under(objectKey(prefix, g.Stream, number), func(rest, _ []byte) bool {
			db.remove(objectKey(prefix, g.Stream, number, rest))
			return true
		})
	}
	db.remove(objectKey('g', g.Stream, g.Name))
}

// ConsumerOf returns a group's consumer, or nil; with add one that is to be made.
func (db *DB) ConsumerOf(g *Group, name []byte, add bool) *Consumer {
	b := db.peekAt(objectKey('c', g.Stream, be.AppendUint64(nil, g.Number), name))
	switch {
	case len(b) >= 16:
		return &Consumer{Name: bytes.Clone(name), Seen: int64(be.Uint64(b)), Pending: be.Uint64(b[8:])}
	case !add:
		return nil
	}
	if len(name) > MaxKey-8 {
		db.fail(ErrKeyTooLong)
	}
	return &Consumer{Name: bytes.Clone(name), Seen: db.Now, Fresh: true}
}

// Consumers lists a group's consumers.
func (db *DB) Consumers(g *Group) (list []*Consumer) {
	db.under(objectKey('c', g.Stream, be.AppendUint64(nil, g.Number)), func(rest, b []byte) bool {
		if len(b) >= 16 {
			list = append(list, &Consumer{Name: bytes.Clone(rest), Seen: int64(be.Uint64(b)), Pending: be.Uint64(b[8:])})
		}
		return true
	})
	return list
}

// PutConsumer stores a consumer.
func (db *DB) PutConsumer(g *Group, c *Consumer) {
	b := be.AppendUint64(be.AppendUint64(nil, uint64(c.Seen)), c.Pending)
	db.change(kv.Change{Key: objectKey('c', g.Stream, be.AppendUint64(nil, g.Number), c.Name), Bytes: b})
}

// RemoveConsumer removes a consumer with its pending entries, and returns how
// many these were.
func (db *DB) RemoveConsumer(g *Group, c *Consumer) (n uint64) {
	db.PendingOf(g, MinID, MaxID, func(p Pending) bool {
		if bytes.Equal(p.Consumer, c.Name) {
			db.RemovePending(g, p.ID)
			n++
		}
		return true
	})
	g.Pending -= n
	db.remove(objectKey('c', g.Stream, be.AppendUint64(nil, g.Number), c.Name))
	return n
}

func pendingKey(g *Group, id ID) []byte {
	return id.put(be.AppendUint64(be.AppendUint64([]byte{'p'}, g.Stream), g.Number))
}

func readPending(id ID, b []byte) (p Pending, ok bool) {
	if len(b) < 16 {
		return p, false
	}
	return Pending{id, int64(be.Uint64(b)), be.Uint64(b[8:]), bytes.Clone(b[16:])}, true
}

// PendingAt returns the pending entry with an ID.
func (db *DB) PendingAt(g *Group, id ID) (Pending, bool) {
	return readPending(id, db.peekAt(pendingKey(g, id)))
}

// PendingOf calls fn with a group's pending entries from one ID up to another, until
// it returns false. fn must not use the DB but to gather changes.
func (db *DB) PendingOf(g *Group, from, to ID, fn func(Pending) bool) {
	prefix := be.AppendUint64(be.AppendUint64([]byte{'p'}, g.Stream), g.Number)
	db.fail(db.kv.Ascend(from.put(bytes.Clone(prefix)), func(key []byte, v *kv.Value) bool {
		if len(key) != 33 || !bytes.HasPrefix(key, prefix) {
			return false
		}
		id := getID(key[17:])
		if to.Less(id) {
			return false
		}
		p, ok := readPending(id, db.whole(v))
		return !ok || fn(p)
	}))
}

// PutPending stores a pending entry.
func (db *DB) PutPending(g *Group, p Pending) {
	b := be.AppendUint64(be.AppendUint64(nil, uint64(p.Time)), p.Count)
	db.change(kv.Change{Key: pendingKey(g, p.ID), Bytes: append(b, p.Consumer...)})
}

// RemovePending removes a pending entry; its group and consumer count is the
// caller's to change.
func (db *DB) RemovePending(g *Group, id ID) { db.remove(pendingKey(g, id)) }

// Deliver notes that a consumer was given an entry: one that is pending already,
// also with another consumer, changes hands.
func (db *DB) Deliver(g *Group, to *Consumer, p Pending) {
	if old, ok := db.PendingAt(g, p.ID); ok {
		if bytes.Equal(old.Consumer, to.Name) {
			to.Pending--
		} else if from := db.ConsumerOf(g, old.Consumer, false); from != nil {
			from.Pending -= db.taken(g, from.Name)
			db.PutConsumer(g, from)
		}
		g.Pending--
	}
	to.Pending++
	g.Pending++
	db.PutPending(g, p)
}

// taken counts, within a command, what is taken from one consumer: its stored number
// is that from before the command.
func (db *DB) taken(g *Group, name []byte) uint64 {
	key := string(objectKey('c', g.Stream, be.AppendUint64(nil, g.Number), name))
	if db.moved == nil {
		db.moved = map[string]uint64{}
	}
	db.moved[key]++
	return db.moved[key]
}

// Tombstones reports whether entries from an ID on may have been deleted.
func (s *StreamRef) Tombstones(from ID) bool {
	return s.Length != 0 && s.Deleted != MinID && !s.Deleted.Less(from)
}

// Distance is how many entries there were up to an ID, that one included, since the
// stream was made, or -1 if that cannot be told.
func (db *DB) Distance(s *StreamRef, id ID) int64 {
	switch {
	case s.Added == 0:
		return 0
	case s.Length == 0 && !s.Last.Less(id), id == s.Last:
		return int64(s.Added)
	case s.Last.Less(id):
		return -1
	}
	first, ok := db.First(s)
	if !ok || s.Deleted != MinID && !s.Deleted.Less(first) {
		return -1
	}
	switch {
	case id.Less(first):
		return int64(s.Added - s.Length)
	case id == first:
		return int64(s.Added-s.Length) + 1
	}
	return -1
}

// Forget removes the pending entry of an entry that is gone; who is a consumer that
// the caller stores.
func (db *DB) Forget(g *Group, who *Consumer, p Pending) {
	if bytes.Equal(p.Consumer, who.Name) {
		who.Pending--
	} else if from := db.ConsumerOf(g, p.Consumer, false); from != nil {
		from.Pending -= db.taken(g, from.Name)
		db.PutConsumer(g, from)
	}
	g.Pending--
	db.RemovePending(g, p.ID)
}
