package btree

import "bytes"

// Count returns how many keys there are from lo on and below hi (nil: no limit).
// It looks at no more than the leaves' heads where all of a leaf counts.
func (v *view) Count(lo, hi []byte) (n uint64, err error) {
	defer v.guardRead(&err)
	err = v.p.Guard(func() error {
		if v.height > 0 {
			n = v.countIn(v.frame, v.height-1, lo, hi)
		}
		return nil
	})
	return n, err
}

// countIn counts below a node; a limit that all of its keys keep is nil.
func (v *view) countIn(frame uint32, level int, lo, hi []byte) (sum uint64) {
	n := v.node(frame, level)
	if level == 0 {
		from, to := n.inside(lo, hi)
		return uint64(to - from)
	}
	from, to := 0, n.count()-1
	if lo != nil {
		from = n.route(lo)
	}
	if hi != nil {
		to = n.route(hi)
	}
	for i := from; i <= to; i++ {
		l, h := lo, hi
		if i > from {
			l = nil
		}
		if i < to {
			h = nil
		}
		sum += v.countIn(n.child(i), level-1, l, h)
	}
	return sum
}

// inside returns which cells of a leaf have keys from lo on and below hi.
func (n node) inside(lo, hi []byte) (from, to int) {
	to = n.count()
	if lo != nil {
		from, _ = n.find(lo)
	}
	if hi != nil {
		to, _ = n.find(hi)
	}
	return from, max(from, to)
}

// Pick calls fn with a key from lo on and below hi, chosen by rnd, which returns a
// number from 0 up to n-1. Keys in leaves that are not full are chosen more
// often than others. It reports whether there is any key.
func (v *view) Pick(lo, hi []byte, rnd func(n int) int, fn func(Entry)) (found bool, err error) {
	defer v.guardRead(&err)
	err = v.p.Guard(func() error {
		if v.height == 0 {
			return nil
		}
		frame := v.frame
		for level := v.height - 1; level > 0; level-- {
			n := v.node(frame, level)
			from, to := n.route(lo), n.count()-1
			if hi != nil {
				to = n.route(hi)
			}
			frame = n.child(from + rnd(max(to-from, 0)+1))
		}
		n := v.node(frame, 0)
		if from, to := n.inside(lo, hi); from < to {
			found = true
			fn(Entry{v, n, from + rnd(to-from)})
		}
		return nil
	})
	if found || err != nil {
		return found, err
	}
	// A leaf at the range's edge may have none of its keys.
	err = v.Ascend(lo, func(e Entry) bool {
		if found = hi == nil || bytes.Compare(e.Key(), hi) < 0; found {
			fn(e)
		}
		return false
	})
	return found, err
}
