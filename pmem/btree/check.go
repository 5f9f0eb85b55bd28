package btree

import (
	"errors"
	"fmt"

	"github.com/pastenet/paste/pmem"
)

// Kind is the number that trees are registered with (pmem.RegisterKind).
const Kind uint32 = 0x45455254 // "TREE"

const formatVersion = 1

func init() {
	pmem.RegisterKind(pmem.Kind{ID: Kind, Name: "tree", Walk: walk, Check: Check, Dump: Dump, Restore: Restore})
}

// visitor goes through a tree without trusting any of it.
type visitor struct {
	view
	use   func(frame uint32, c pmem.Claim) error // may be nil
	each  func(key []byte, v *Value) error       // may be nil
	found func(error) error                      // what to do with a problem; nil goes on
	keys  uint64
	value Value
}

// run visits everything. It returns the first error of use, each and found.
func (v *visitor) run() error {
	if v.height > 0 {
		if err := v.p.Guard(func() error { return v.visit(v.frame, v.height-1, nil, nil) }); err != nil {
			return err
		}
	}
	if v.keys != v.count {
		err := fmt.Errorf("%w: %d keys were found, the root says %d", pmem.ErrDamaged, v.keys, v.count)
		if v.name != "" {
			err = fmt.Errorf("tree %q: %w", v.name, err)
		}
		return v.found(err)
	}
	return nil
}

// try calls fn and passes on what a damaged node makes it panic with.
func (v *visitor) try(fn func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = v.found(damaged(v.name, r))
			if err == nil {
				err = errSkip
			}
		}
	}()
	return fn()
}

// errSkip ends the visit of one node.
var errSkip = errors.New("skip")

func (v *visitor) visit(frame uint32, level int, lo, hi []byte) error {
	var n node
	err := v.try(func() error {
		if v.p.Frame(frame) == nil {
			panic(&damage{frame, "is no data frame"})
		}
		n = node(v.p.Frame(frame))
		n.check(v.seed, frame, level, lo, hi)
		if n.gen() > v.gen {
			n.bad("generation %d in a tree of generation %d", n.gen(), v.gen)
		}
		if v.use != nil {
			return v.use(frame, pmem.Sole)
		}
		return nil
	})
	for i := 0; err == nil && i < n.count(); i++ {
		if level == 0 {
			v.keys++
			err = v.try(func() error { return v.leafValue(n, i) })
		} else {
			from, to := n.bounds(i, lo, hi)
			err = v.visit(n.child(i), level-1, from, to)
		}
		if err == errSkip {
			err = nil
		}
	}
	if err == errSkip {
		err = nil
	}
	return err
}

func (v *visitor) leafValue(n node, i int) error {
	b := n.value(i)
	v.decode(n, b, &v.value)
	if v.use != nil {
		for _, f := range v.value.Frags {
			if err := v.use(f.Frame, pmem.Shared); err != nil {
				return err
			}
		}
		if b[0] == kindOverflow {
			var err error
			v.overflow(n, b, func(f uint32, _ overflowFrame) {
				if err == nil {
					err = v.use(f, pmem.Sole)
				}
			})
			if err != nil {
				return err
			}
		}
	}
	if v.each != nil {
		return v.each(n.key(i), &v.value)
	}
	return nil
}

// Walk calls use once for every reference to a frame that the tree holds, until
// that returns an error. It verifies every node.
func Walk(p *pmem.Pool, r pmem.Root, use func(frame uint32) error) error {
	return walk(p, r, func(frame uint32, _ pmem.Claim) error { return use(frame) })
}

// walk is the pmem.Walker of trees. Nodes are a tree's own, values are shared
// with the log and with whoever holds on to one.
func walk(p *pmem.Pool, r pmem.Root, use func(frame uint32, c pmem.Claim) error) error {
	d, err := decodeRoot(r)
	if err != nil {
		return err
	}
	v := visitor{view: newView(p, "", d), use: use, found: func(err error) error { return err }}
	return v.run()
}

// Check verifies nodes and the content of values, and names every problem.
func Check(p *pmem.Pool, name string, r pmem.Root, report func(error) error) error {
	d, err := decodeRoot(r)
	if err != nil {
		return report(fmt.Errorf("tree %q: %w", name, err))
	}
	v := visitor{view: newView(p, name, d), found: report}
	v.each = func(key []byte, val *Value) error {
		if err := val.Verify(p); err != nil {
			return report(fmt.Errorf("tree %q: key %q: %w", name, key, err))
		}
		return nil
	}
	return v.run()
}
