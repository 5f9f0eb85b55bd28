package btree

import "fmt"

// Clear removes all keys. What they took is given back as after any change.
func (t *Tree) Clear() error {
	if err := t.usable(); err != nil {
		return fmt.Errorf("clear: %w", err)
	}
	if t.height == 0 {
		return nil
	}
	return t.change(func() error {
		// A damaged node is found before anything has changed.
		refs := t.garbage
		defer func() { t.garbage = refs }()
		t.drop(t.frame, t.height-1, nil, nil)
		refs = t.garbage
		t.frame, t.height, t.count = 0, 0, 0
		return nil
	})
}

// drop gives up a node and all below it.
func (t *Tree) drop(frame uint32, level int, lo, hi []byte) {
	n := t.sound(frame, level, lo, hi)
	for i := range n.count() {
		if level == 0 {
			t.dropValue(n, n.value(i))
			continue
		}
		from, to := n.bounds(i, lo, hi)
		t.drop(n.child(i), level-1, from, to)
	}
	t.discard(n)
}
