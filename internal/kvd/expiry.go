package kvd

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/btree"
)

// expiryRoot is the name of a tree that says when which key is to be looked at: its
// keys are a time, in seconds since 1970, u64 big-endian, and a key. Of a key that is
// longer than 247 bytes there are 231, and 16 of its SHA-256; the rest of it is the
// value. It is a hint: the time that counts is in
// the value's head. So an entry may be wrong, and is dropped then; but there must be
// one for each value that expires, and it is durable first.
const expiryRoot = "kv-expiry"

const expiryReserve = 16

// expiryIndex is that tree. Whoever changes it holds shared.write.
type expiryIndex struct {
	p       *pmem.Pool
	tree    *btree.Tree // nil until a value is to expire
	changed bool
	entries atomic.Uint64
}

func (x *expiryIndex) open(p *pmem.Pool) (err error) {
	x.p = p
	if _, ok := p.Root(expiryRoot); ok {
		if x.tree, err = btree.Open(p, expiryRoot, btree.Options{Reserve: expiryReserve}); err != nil {
			return fmt.Errorf("open what is known of expiry: %w", err)
		}
		x.entries.Store(x.tree.Len())
	}
	return nil
}

func (x *expiryIndex) close() {
	if x.tree != nil {
		x.tree.Close()
	}
}

// any reports whether there may be a value that expires.
func (x *expiryIndex) any() bool { return x.entries.Load() > 0 }

const (
	inIndex = btree.MaxKey - 8 // bytes of a key that fit
	hashed  = 16
)

// entryOf returns key and value of an entry.
func entryOf(at int64, key []byte) (name, rest []byte) {
	name = binary.BigEndian.AppendUint64(make([]byte, 0, btree.MaxKey), uint64(at))
	if len(key) <= inIndex {
		return append(name, key...), nil
	}
	sum := sha256.Sum256(key)
	name = append(name, key[:inIndex-hashed]...)
	return append(name, sum[:hashed]...), key[inIndex-hashed:]
}

// keyOf is the key of an entry.
func keyOf(name, rest []byte) []byte {
	if len(rest) == 0 {
		return name[8:]
	}
	return append(append([]byte(nil), name[8:len(name)-hashed]...), rest...)
}

func (x *expiryIndex) add(at int64, key []byte) (err error) {
	if x.tree == nil {
		if x.tree, err = btree.Create(x.p, expiryRoot, btree.Options{Reserve: expiryReserve}); err != nil {
			return err
		}
	}
	name, rest := entryOf(at, key)
	x.changed = true
	if _, err := x.tree.Put(name, &btree.Value{Inline: rest}); err != nil {
		return fmt.Errorf("note when a value expires: %w", err)
	}
	x.entries.Store(x.tree.Len())
	return nil
}

func (x *expiryIndex) remove(name []byte) error {
	x.changed = true
	if _, err := x.tree.Delete(name); err != nil {
		return fmt.Errorf("forget when a value expires: %w", err)
	}
	x.entries.Store(x.tree.Len())
	return nil
}

func (x *expiryIndex) commit() error {
	if !x.changed {
		return nil
	}
	x.changed = false
	return x.tree.Commit()
}

// due is an entry whose time has come.
type due struct{ name, key []byte }

// due returns up to n entries that are due, and the time of the first that is not;
// 0 if there is none.
func (x *expiryIndex) due(now int64, n int) (list []due, next int64, err error) {
	if x.tree == nil {
		return nil, 0, nil
	}
	var v btree.Value
	err = x.tree.Ascend(nil, func(e btree.Entry) bool {
		name := append([]byte(nil), e.Key()...)
		if e.Value(&v); len(name) < 8 || len(v.Inline) > 0 && len(name) < 8+hashed {
			list = append(list, due{name: name})
			return true
		}
		at := int64(binary.BigEndian.Uint64(name))
		if at > now || len(list) == n {
			next = at
			return false
		}
		list = append(list, due{name, keyOf(name, v.Inline)})
		return true
	})
	return list, next, err
}

// expireAtOnce is how many entries are looked at between two batches.
const expireAtOnce = 128

// Tick implements httpd.Handler: it removes values that have expired.
func (h *handler) Tick() (next time.Duration, err error) {
	s := h.shared
	if !s.expire.any() {
		return -1, nil
	}
	s.write.Lock()
	defer s.write.Unlock()
	now := s.now()
	list, first, err := s.expire.due(now.Unix(), expireAtOnce)
	if err != nil {
		return 0, err
	}
	switch err := h.expireAll(list); {
	case errors.Is(err, pmem.ErrFull):
		return time.Second, nil // perhaps there is room by then
	case err != nil:
		return 0, err
	case len(list) > 0:
		return 0, nil // their entries go at the next look
	case first == 0:
		return -1, nil
	}
	return min(max(time.Unix(first, 0).Sub(now), time.Millisecond), time.Minute), nil
}

// expireAll removes the values that have expired, and the entries of those that are
// gone or have another time by now. An entry goes when it is durable that its value
// has gone: nobody would find that one otherwise.
func (h *handler) expireAll(list []due) error {
	var passed [][]byte
	for _, d := range list {
		found, err := h.store.Get(d.key, &h.value)
		if err != nil && !errors.Is(err, pmem.ErrChecksum) && !errors.Is(err, pmem.ErrDamaged) {
			return err
		}
		expired := found && h.expired(&h.value)
		if found {
			h.store.Release(&h.value)
		}
		if !expired {
			passed = append(passed, d.name)
			continue
		}
		if _, err := h.store.Delete(d.key); err != nil {
			return err
		}
	}
	if len(passed) == 0 {
		return nil
	}
	if err := h.store.Commit(); err != nil {
		return err
	}
	for _, name := range passed {
		if err := h.shared.expire.remove(name); err != nil {
			return err
		}
	}
	return nil
}

// Commit implements httpd.Handler.
func (h *handler) Commit() error {
	s := h.shared
	if !s.expire.any() && !s.dirty.Load() {
		return h.store.Commit()
	}
	s.write.Lock()
	defer s.write.Unlock()
	s.dirty.Store(false)
	if err := s.expire.commit(); err != nil { // first, see expiryRoot
		return err
	}
	return h.store.Commit()
}
