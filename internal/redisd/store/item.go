package store

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/btree"
	"github.com/pastenet/paste/pmem/kv"
)

// Kind is a value's type.
type Kind uint8

// The kinds. None is that of a name that is not there.
const (
	None Kind = iota
	String
	Hash
	Stream
)

// String is the kind's name as TYPE says it.
func (k Kind) String() string { return [...]string{"none", "string", "hash", "stream"}[k&3] }

const (
	flagExpires = 128
	flagReply   = 64 // a string is stored as "$n\r\n", its bytes, "\r\n"
	kindMask    = 15
)

// Item is what a name leads to. What it refers to lies in the pool, and is valid
// until something is changed.
type Item struct {
	Kind Kind
	At   int64 // when it expires, or 0

	reply bool
	skip  int    // bytes of the first piece in front of the rest
	head  []byte // the first piece of the value, or all of it
	v     *kv.Value
	db    *DB
}

// Find looks a name up. What has expired is not there, and is removed.
func (db *DB) Find(name []byte) Item {
	if db.err != nil || len(name) > MaxKey {
		return Item{}
	}
	it := db.peek(name)
	if it.At != 0 && it.At <= db.Now {
		db.expired(name, it)
		return Item{}
	}
	return it
}

// peek is Find that does not look at the time.
func (db *DB) peek(name []byte) Item {
	key := append(append(db.lookup[:0], 'k'), name...)
	found, err := db.kv.Peek(key, &db.found)
	if err != nil {
		db.fail(err)
		return Item{}
	}
	if !found {
		return Item{}
	}
	return db.item(&db.found)
}

// item reads a value's head.
func (db *DB) item(v *kv.Value) Item {
	it := Item{v: v, db: db, head: v.Inline}
	if len(v.Frags) > 0 {
		it.head = db.piece(v.Frags[0])
	}
	if v.Pre > 0 {
		it.Kind, it.reply, it.skip = String, true, int(v.Pre)
		return it // without a look at it: it may be in no cache
	}
	if len(it.head) == 0 {
		db.fail(fmt.Errorf("%w: a value without a head", pmem.ErrDamaged))
		return Item{}
	}
	b := it.head[0]
	it.Kind, it.reply, it.skip = Kind(b&kindMask), b&flagReply != 0, 1
	if b&flagExpires != 0 && len(it.head) >= 9 {
		it.At, it.skip = int64(be.Uint64(it.head[1:])), 9
	}
	if it.Kind == None || it.Kind > Stream {
		db.fail(fmt.Errorf("%w: a value of kind %d", pmem.ErrDamaged, it.Kind))
		return Item{}
	}
	return it
}

func (db *DB) piece(f pmem.Fragment) []byte {
	return db.Pool().Frame(f.Frame)[f.Off : int(f.Off)+int(f.Len)]
}

// rest is what follows the head of a value that is a hash's or a stream's.
func (it *Item) rest(n int) []byte {
	if len(it.head) < it.skip+n {
		it.db.fail(fmt.Errorf("%w: a %v of %d bytes", pmem.ErrDamaged, it.Kind, len(it.head)))
		return make([]byte, n)
	}
	return it.head[it.skip:]
}

// Len is a string's length in bytes.
func (it *Item) Len() int {
	if it.Kind == None {
		return 0
	}
	n := int(it.v.Size()) + int(it.v.Pre) - it.skip
	if it.reply {
		n -= it.lead() + 2
	}
	return n
}

// lead is the length of "$n\r\n".
func (it *Item) lead() int {
	for i := it.skip; i < len(it.head); i++ {
		if it.head[i] == '\n' {
			return i + 1 - it.skip
		}
	}
	it.db.fail(fmt.Errorf("%w: a string without its length", pmem.ErrDamaged))
	return 0
}

// AppendTo appends a string's bytes to b.
func (it *Item) AppendTo(b []byte) []byte {
	if it.Kind == None {
		return b
	}
	from, skip, n := len(b), it.skip, it.Len()
	if it.reply {
		skip += it.lead()
	}
	if len(it.v.Frags) == 0 {
		return append(b, it.head[skip:]...)
	}
	for _, f := range it.v.Frags {
		p := it.db.piece(f)
		k := min(skip, len(p))
		p = p[k:]
		b = append(b, p[:min(len(p), from+n-len(b))]...) // without the line break at its end
		skip -= k
	}
	return b
}

// Bytes returns a string's bytes, in the pool where they lie there in one piece.
func (it *Item) Bytes() []byte {
	if it.Kind == None {
		return nil
	}
	if len(it.v.Frags) <= 1 {
		skip, n := it.skip, it.Len()
		if it.reply {
			skip += it.lead()
		}
		return it.head[skip : skip+n]
	}
	return it.AppendTo(nil)
}

// Reply calls one of its arguments with a string: raw with pieces that together
// are the reply to a GET, or bulk with its bytes.
func (it *Item) Reply(bulk func([]byte), raw func(pmem.Fragment)) {
	if !it.reply {
		bulk(it.Bytes())
		return
	}
	skip := it.skip
	for _, f := range it.v.Frags {
		k := min(skip, int(f.Len))
		f.Off += uint16(k)
		f.Len -= uint16(k)
		skip -= k
		if f.Len > 0 {
			raw(f)
		}
	}
}

// Verify compares a string with its checksum.
func (it *Item) Verify() bool {
	if it.Kind == None || len(it.v.Frags) == 0 {
		return true
	}
	err := it.v.Verify(it.db.Pool())
	it.db.fail(err)
	return err == nil
}

// appendHead begins a value.
func appendHead(b []byte, kind Kind, flags byte, at int64) []byte {
	if at != 0 {
		return be.AppendUint64(append(b, byte(kind)|flags|flagExpires), uint64(at))
	}
	return append(b, byte(kind)|flags)
}

// replyFrom is how long a string is that is stored as a reply: it is in frames then,
// and not in the tree.
const replyFrom = btree.MaxInline

// set gathers the change that stores a string, without what becomes of the one
// before.
func (db *DB) set(name, value []byte, at int64) {
	key := db.key('k', name)
	from := len(db.arena)
	c := kv.Change{Key: key, Bytes: value}
	if len(value) >= replyFrom {
		// What does not expire has no head: what lies in front of it tells.
		if c.Lead = at == 0 && len(key) <= kv.MaxLead; !c.Lead {
			db.arena = appendHead(db.arena, String, flagReply, at)
		}
		db.arena = append(db.arena, '$')
		db.arena = strconv.AppendInt(db.arena, int64(len(value)), 10)
		db.arena = append(db.arena, "\r\n"...)
		c.Tail = crlf
	} else {
		db.arena = appendHead(db.arena, String, 0, at)
	}
	c.Head = db.arena[from:len(db.arena):len(db.arena)]
	if db.Fault != nil && db.Fault(name) {
		return
	}
	db.change(c)
}

var crlf = []byte("\r\n")

// Full reports whether an error is that of a pool without room.
func Full(err error) bool { return errors.Is(err, pmem.ErrFull) }
