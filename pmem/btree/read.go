package btree

import (
	"fmt"

	"github.com/pastenet/paste/pmem"
)

// Entry is a key with its value, valid within the call that it is given to.
type Entry struct {
	v *view
	n node
	i int
}

// Key returns the key, in the pool.
func (e Entry) Key() []byte { return e.n.key(e.i) }

// Value reads the value into v, whose Frags are used again.
func (e Entry) Value(v *Value) { e.v.decode(e.n, e.n.value(e.i), v) }

// Len is the number of keys.
func (v *view) Len() uint64 { return v.count }

// Get looks key up and reads its value into val, whose Frags are used again.
// What it refers to stays until the tree is changed or the snapshot closed.
func (v *view) Get(key []byte, val *Value) (found bool, err error) {
	defer v.guardRead(&err)
	err = v.p.Guard(func() error {
		found = v.get(key, val)
		return nil
	})
	return found, err
}

func (v *view) get(key []byte, val *Value) (found bool) {
	if v.height == 0 {
		return false
	}
	frame := v.frame
	var lo, hi []byte
	for level := v.height - 1; ; level-- {
		n := v.within(frame, level, lo, hi)
		if level > 0 {
			i := n.route(key)
			if v.wary {
				lo, hi = n.bounds(i, lo, hi)
			}
			frame = n.child(i)
			continue
		}
		i, found := n.find(key)
		if found {
			v.decode(n, n.value(i), val)
		}
		return found
	}
}

// Ascend calls fn with every entry from the first key that is not smaller than
// from, in order, until fn returns false. fn must not change the tree. It may
// look at the pool as it likes: it runs under pmem.Pool.Guard.
func (v *view) Ascend(from []byte, fn func(Entry) bool) (err error) {
	defer v.guardRead(&err)
	return v.p.Guard(func() error {
		if v.height > 0 {
			v.ascend(v.frame, v.height-1, nil, nil, from, fn)
		}
		return nil
	})
}

func (v *view) ascend(frame uint32, level int, lo, hi, from []byte, fn func(Entry) bool) bool {
	n := v.within(frame, level, lo, hi)
	i := 0
	if level == 0 {
		for i, _ = n.find(from); i < n.count(); i++ {
			if !fn(Entry{v, n, i}) {
				return false
			}
		}
		return true
	}
	if len(from) > 0 {
		i = n.route(from)
	}
	for ; i < n.count(); i++ {
		lo, hi := n.bounds(i, lo, hi)
		if !v.ascend(n.child(i), level-1, lo, hi, from, fn) {
			return false
		}
		from = nil
	}
	return true
}

// Descend calls fn with every entry from the last key that is not larger than
// from (nil: the last one of all), in falling order, until fn returns false.
// fn must not change the tree.
func (v *view) Descend(from []byte, fn func(Entry) bool) (err error) {
	defer v.guardRead(&err)
	return v.p.Guard(func() error {
		if v.height > 0 {
			v.descendFrom(v.frame, v.height-1, nil, nil, from, fn)
		}
		return nil
	})
}

func (v *view) descendFrom(frame uint32, level int, lo, hi, from []byte, fn func(Entry) bool) bool {
	n := v.within(frame, level, lo, hi)
	i := n.count() - 1
	if level == 0 {
		if from != nil {
			var found bool
			if i, found = n.find(from); !found {
				i--
			}
		}
		for ; i >= 0; i-- {
			if !fn(Entry{v, n, i}) {
				return false
			}
		}
		return true
	}
	if from != nil {
		i = n.route(from)
	}
	for ; i >= 0; i-- {
		lo, hi := n.bounds(i, lo, hi)
		if !v.descendFrom(n.child(i), level-1, lo, hi, from, fn) {
			return false
		}
		from = nil
	}
	return true
}

// guardRead turns the panic of damaged nodes into an error.
func (v *view) guardRead(err *error) {
	if r := recover(); r != nil {
		*err = damaged(v.name, r)
	}
}

// Snapshot is one committed generation. It may be used from several
// goroutines at once, while the tree goes on to change. Frames that only it
// needs stay in use until it is closed.
type Snapshot struct {
	view
	t      *Tree
	closed bool
}

// Snapshot returns the generation that was committed last. It may be called
// from any goroutine.
func (t *Tree) Snapshot() *Snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pins[t.durable.gen]++
	return &Snapshot{view: newView(t.p, t.name, t.durable), t: t}
}

// Generation numbers commits.
func (s *Snapshot) Generation() uint64 { return s.gen }

// Tag is what SetTag had been told when the generation was committed.
func (s *Snapshot) Tag() uint64 { return s.tag }

// Close lets go of the generation; what only it needed is given back by the
// tree's next commit.
func (s *Snapshot) Close() {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	if s.t.pins[s.gen]--; s.t.pins[s.gen] == 0 {
		delete(s.t.pins, s.gen)
	}
}

func (r *root) encode() pmem.Root {
	p := pmem.Root{Kind: Kind, Frame: r.frame}
	le.PutUint64(p.Value[0:], r.gen)
	le.PutUint64(p.Value[8:], r.count)
	le.PutUint64(p.Value[16:], r.tag)
	p.Value[24] = byte(r.height)
	p.Value[25] = formatVersion
	return p
}

func decodeRoot(p pmem.Root) (root, error) {
	if p.Kind != Kind {
		return root{}, fmt.Errorf("%w: the root is of kind %#x", ErrNoTree, p.Kind)
	}
	r := root{
		frame:  p.Frame,
		gen:    le.Uint64(p.Value[0:]),
		count:  le.Uint64(p.Value[8:]),
		tag:    le.Uint64(p.Value[16:]),
		height: int(p.Value[24]),
	}
	switch {
	case p.Value[25] != formatVersion:
		return root{}, fmt.Errorf("%w: tree format %d, this program knows %d", pmem.ErrVersion, p.Value[25], formatVersion)
	case r.height > maxLevel, (r.height == 0) != (r.frame == 0), (r.height == 0) != (r.count == 0):
		return root{}, fmt.Errorf("%w: a root of %d levels and %d keys in frame %d", pmem.ErrDamaged, r.height, r.count, r.frame)
	}
	return r, nil
}
