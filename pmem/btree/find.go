package btree

import "bytes"

// way is where Find has arrived. It is good until the tree is changed.
type way struct {
	ok    bool
	found bool
	i     int // where the key is in the leaf at the end of Tree.path, or belongs
	key   []byte
}

// Find is Get for who may change what it finds: a Put of the same key that follows
// does not walk to it once more.
func (t *Tree) Find(key []byte, val *Value) (found bool, err error) {
	if t.wary || t.height == 0 || len(key) > MaxKey {
		return t.Get(key, val)
	}
	defer t.guardRead(&err)
	err = t.p.Guard(func() error {
		found = t.walk(key, val)
		return nil
	})
	return found, err
}

// walk notes the way that it goes.
func (t *Tree) walk(key []byte, val *Value) bool {
	t.path, t.way.ok = t.path[:0], false
	frame := t.frame
	for level := t.height - 1; ; level-- {
		s := step{n: t.node(frame, level)}
		if level > 0 {
			s.i = s.n.route(key)
			frame = s.n.child(s.i)
			t.path = append(t.path, s)
			continue
		}
		t.path = append(t.path, s)
		i, found := s.n.find(key)
		if found {
			t.decode(s.n, s.n.value(i), val)
		}
		t.way = way{ok: true, found: found, i: i, key: append(t.way.key[:0], key...)}
		return found
	}
}

// stands reports whether the noted way is that to key, and may be changed as it is:
// its leaf is of the working generation, and so are the nodes above it.
func (t *Tree) stands(key []byte) bool {
	return t.way.ok && t.path[len(t.path)-1].n.gen() == t.gen && bytes.Equal(t.way.key, key)
}
