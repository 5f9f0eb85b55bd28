package btree

import (
	"bytes"
	"fmt"
)

// Put stores v under key, in place of what was there. The tree takes a
// reference to every fragment's frame; the caller keeps its own. The content
// of the fragments must be flushed (pmem.Pool.Flush) before the commit that is
// to make it durable, and not change any more.
//
// On an error nothing was changed; pmem.ErrFull when the pool has no room.
func (t *Tree) Put(key []byte, v *Value) (replaced bool, err error) {
	if err := t.usable(); err != nil {
		return false, fmt.Errorf("put: %w", err)
	}
	if len(key) > MaxKey {
		return false, fmt.Errorf("put: %w", ErrKeyTooLong)
	}
	if err := checkValue(t.p, v); err != nil {
		return false, fmt.Errorf("put: %w", err)
	}
	more := overflowFrames(t.size, len(v.Frags))
	if err := t.need(2*t.height+2+more, false); err != nil {
		return false, fmt.Errorf("put: %w", err)
	}
	err = t.change(func() error {
		if t.height > 0 && !t.stands(key) {
			t.descend(key)
		}
		if err := t.p.RefAll(v.Frags); err != nil {
			return fmt.Errorf("put: %w", err)
		}
		t.changing = true
		first := uint32(0)
		if more > 0 {
			first = t.writeOverflow(v.Frags)
		}
		t.cell = v.encode(t.cell[:0], first)
		replaced = t.put(key, t.cell)
		return nil
	})
	return replaced, err
}

// put changes the tree along the noted way.
func (t *Tree) put(key, value []byte) (replaced bool) {
	if t.height == 0 {
		n := t.newNode(0)
		n.addLeaf(0, key, value, t.scratch)
		t.frame, t.height, t.count = n.frame(), 1, 1
		return false
	}
	n := t.path[len(t.path)-1].n
	i, found := t.way.i, t.way.found
	if !t.way.ok {
		i, found = n.find(key)
	}
	if found {
		t.dropValue(n, n.value(i))
	}
	n = t.ownPath()
	if found {
		if old := n.value(i); len(old) == len(value) {
			copy(old, value)
			return true
		}
		n.remove(i)
	} else {
		t.count++
	}
	if !n.addLeaf(i, key, value, t.scratch) {
		t.splitLeaf(n, i, key, value)
	}
	return found
}

// descend walks to the leaf where key belongs, checks and notes the way.
func (t *Tree) descend(key []byte) node {
	t.path, t.way.ok = t.path[:0], false
	frame := t.frame
	var lo, hi []byte
	for level := t.height - 1; ; level-- {
		n := t.sound(frame, level, lo, hi)
		s := step{n: n}
		if level > 0 {
			s.i = n.route(key)
			if frame = n.child(s.i); !t.known.has(frame) { // it is to be checked
				lo, hi = n.bounds(s.i, lo, hi)
			}
		}
		t.path = append(t.path, s)
		if level == 0 {
			return n
		}
	}
}

// ownPath makes the nodes of the noted way changeable, and returns the leaf.
func (t *Tree) ownPath() node {
	for k := range t.path {
		s := &t.path[k]
		if s.n.gen() == t.gen {
			continue
		}
		s.n = t.own(s.n)
		t.linkPath(k)
	}
	return t.path[len(t.path)-1].n
}

// linkPath makes the parent of the k-th node on the way refer to it.
func (t *Tree) linkPath(k int) {
	if k == 0 {
		t.frame = t.path[0].n.frame()
		return
	}
	up := &t.path[k-1]
	up.n.setChild(up.i, t.path[k].n.frame())
}

// splitLeaf splits n and adds a cell at index i, for which it has no room.
func (t *Tree) splitLeaf(n node, i int, key, value []byte) {
	m := n.middle()
	if i == n.count() && t.rightmost() {
		m = n.count() - 1 // keys come in order: leave a full node behind
	}
	right := t.newNode(0)
	for j := m; j < n.count(); j++ {
		right.take(n, j, t.scratch)
	}
	n.truncate(m, t.scratch)
	sep := separator(n.key(m-1), right.key(0))
	into, at := n, i
	if bytes.Compare(key, sep) >= 0 {
		into, at = right, i-m
	}
	if !into.addLeaf(at, key, value, t.scratch) {
		into.bad("no room after a split")
	}
	t.addChild(len(t.path)-2, sep, right)
}

// rightmost reports whether the noted way leads to the last leaf.
func (t *Tree) rightmost() bool {
	for _, s := range t.path[:len(t.path)-1] {
		if s.i != s.n.count()-1 {
			return false
		}
	}
	return true
}

// addChild adds a node to the k-th node of the noted way, right of the one
// that the way goes on to.
func (t *Tree) addChild(k int, sep []byte, child node) {
	if k < 0 {
		top := t.newNode(t.height)
		top.addInner(0, nil, t.frame, t.scratch)
		top.addInner(1, sep, child.frame(), t.scratch)
		t.frame = top.frame()
		t.height++
		return
	}
	n, i := t.path[k].n, t.path[k].i+1
	if n.addInner(i, sep, child.frame(), t.scratch) {
		return
	}
	m := n.middle()
	if i == n.count() {
		m = n.count() - 1
	}
	right := t.newNode(n.level())
	up := bytes.Clone(n.key(m))
	for j := m; j < n.count(); j++ {
		key := n.key(j)
		if j == m {
			key = nil
		}
		right.addInner(j-m, key, n.child(j), t.scratch)
	}
	n.truncate(m, t.scratch)
	into, at := n, i
	if i > m {
		into, at = right, i-m
	}
	if !into.addInner(at, sep, child.frame(), t.scratch) {
		into.bad("no room after a split")
	}
	t.addChild(k-1, up, right)
}

// Delete removes key and reports whether it was there.
//
// On an error nothing was changed. Delete may use the Reserve.
func (t *Tree) Delete(key []byte) (found bool, err error) {
	if err := t.usable(); err != nil {
		return false, fmt.Errorf("delete: %w", err)
	}
	if t.height == 0 || len(key) > MaxKey {
		return false, nil
	}
	err = t.change(func() error {
		n := t.descend(key)
		var i int
		if i, found = n.find(key); !found {
			return nil
		}
		if err := t.need(t.height, true); err != nil {
			return fmt.Errorf("delete: %w", err)
		}
		t.changing = true
		t.dropValue(n, n.value(i))
		n = t.ownPath()
		n.remove(i)
		t.count--
		t.shrink()
		return nil
	})
	return found && err == nil, err
}

// shrink removes or merges nodes on the noted way that have become too empty.
func (t *Tree) shrink() {
	for k := len(t.path) - 1; k > 0; k-- {
		n, up, i := t.path[k].n, t.path[k-1].n, t.path[k-1].i
		switch {
		case n.count() == 0:
			up.remove(i)
			t.discard(n)
		case n.used() >= n.capacity()/4:
			return
		case i+1 < up.count() && t.merge(up, i, i, n):
		case i > 0 && t.merge(up, i-1, i, n):
		default:
			return
		}
	}
	top := t.path[0].n
	for top.level() > 0 && top.count() == 1 {
		t.frame = top.child(0)
		t.height--
		t.discard(top)
		top = t.sound(t.frame, t.height-1, nil, nil)
	}
	if top.count() == 0 {
		t.discard(top)
		t.frame, t.height = 0, 0
	}
}

// merge puts the children left and left+1 of up into one node, if they fit
// with room to spare. n, which is child i of up, is one of them and takes it.
func (t *Tree) merge(up node, left, i int, n node) bool {
	other := t.sound(up.child(left+left+1-i), n.level(), nil, nil)
	sep := up.key(left + 1)
	if n.used()+other.used()+len(sep) > n.capacity()*3/4 {
		return false
	}
	a, b := n, other
	if left != i {
		a, b = other, n
	}
	// The result is put together in a frame's worth of memory, then copied.
	all := node(make([]byte, len(n)))
	all.init(n.frame(), t.gen, n.level())
	for _, from := range []node{a, b} {
		for j := range from.count() {
			if n.level() == 0 {
				all.take(from, j, t.scratch)
				continue
			}
			key := from.key(j)
			if j == 0 {
				key = nil
				if all.count() > 0 {
					key = sep
				}
			}
			all.addInner(all.count(), key, from.child(j), t.scratch)
		}
	}
	copy(n, all)
	t.discard(other)
	up.setChild(left, n.frame())
	up.remove(left + 1)
	return true
}
