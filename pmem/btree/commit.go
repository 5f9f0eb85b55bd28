package btree

import (
	"fmt"
	"math"
)

// Commit is a commit under way. Changes made to the tree after BeginCommit
// belong to the next one.
type Commit struct {
	t       *Tree
	root    root
	dirty   []uint32
	garbage []uint32
}

// BeginCommit ends the working generation and starts the next one, or returns
// the commit that is already under way.
func (t *Tree) BeginCommit() (*Commit, error) {
	if err := t.usable(); err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	if t.pending == nil {
		t.pending = &Commit{t: t, root: t.root, dirty: t.dirty, garbage: t.garbage}
		t.dirty, t.garbage = nil, nil
		t.gen++
	}
	return t.pending, nil
}

// Step writes up to n frames and reports whether that was the last step: then
// what was in the tree at BeginCommit is durable, and the next Snapshot has it.
// Frames that are not needed any more are given back, also n at a time; see
// Tree.Tidy.
func (c *Commit) Step(n int) (done bool, err error) {
	t := c.t
	if err := t.usable(); err != nil {
		return false, fmt.Errorf("commit: %w", err)
	}
	if t.pending != c {
		return true, nil
	}
	err = t.change(func() error {
		done, err = c.step(n)
		return err
	})
	return done, err
}

func (c *Commit) step(n int) (done bool, err error) {
	t := c.t
	t.changing = true
	k := min(n, len(c.dirty))
	for _, f := range c.dirty[:k] {
		if t.unsealed.has(f) { // the others hold fragments of values
			node(t.p.Frame(f)).seal(t.seed)
			t.unsealed.remove(f)
		}
		t.p.Flush(t.p.Offset(f, 0), uint64(t.size))
	}
	if c.dirty = c.dirty[k:]; len(c.dirty) > 0 {
		return false, nil
	}
	if err := c.finish(); err != nil {
		t.failed = fmt.Errorf("tree %q: %w", t.name, err)
		return false, fmt.Errorf("commit: %w", t.failed)
	}
	t.Tidy(n)
	// Before others take what has become free, Delete's part is put aside.
	_ = t.need(0, false) // Put will find out itself
	return true, nil
}

// finish switches the durable root to nodes that are all durable.
func (c *Commit) finish() error {
	t := c.t
	if err := t.p.Fence(); err != nil {
		return err
	}
	if err := t.p.SetRoot(t.name, c.root.encode()); err != nil {
		return err
	}
	t.pending = nil
	t.mu.Lock()
	t.durable = c.root
	t.mu.Unlock()
	if len(c.garbage) > 0 {
		t.reclaim = append(t.reclaim, trash{c.root.gen, c.garbage})
	}
	return nil
}

// Commit makes everything that is in the tree durable, with one fence for all
// of its nodes, and gives back what is not needed any more.
func (t *Tree) Commit() error {
	for {
		again := t.pending != nil // what it holds is older than the tree
		c, err := t.BeginCommit()
		if err != nil {
			return err
		}
		if _, err := c.Step(math.MaxInt); err != nil {
			return err
		}
		if !again {
			return nil
		}
	}
}

// Tidy gives back up to n references to frames that no generation needs that
// can still be read, and reports whether some are left that could be given
// back. It needs to be called only by who commits in steps.
func (t *Tree) Tidy(n int) (more bool) {
	t.release(n)
	return len(t.reclaim) > 0 && t.reclaim[0].gen <= t.oldest()
}

// release is Tidy that tells whether it gave back anything.
func (t *Tree) release(n int) (some bool) {
	oldest := t.oldest()
	for n > 0 && len(t.reclaim) > 0 && t.reclaim[0].gen <= oldest {
		r := &t.reclaim[0]
		k := min(n, len(r.refs))
		if err := t.p.GiveBack(r.refs[:k]); err != nil && t.failed == nil {
			t.failed = fmt.Errorf("tree %q: %w", t.name, err)
		}
		some = some || k > 0
		n -= k
		if r.refs = r.refs[k:]; len(r.refs) == 0 {
			t.reclaim = t.reclaim[1:]
		}
	}
	return some
}

// oldest is the oldest generation that can be read after a crash or by a
// snapshot.
func (t *Tree) oldest() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	gen := t.durable.gen
	for pinned := range t.pins {
		gen = min(gen, pinned)
	}
	return gen
}
