package command

import (
	"bytes"
	"math"
	"math/rand/v2"

	"github.com/pastenet/paste/internal/redisd/store"
)

func hRandField(c *Client, a [][]byte) {
	values := false
	var n int64
	if len(a) > 2 {
		var ok bool
		if n, ok = c.int(a[2]); !ok {
			return
		}
		if len(a) > 4 || len(a) == 4 && !is(a[3], "WITHVALUES") {
			c.R.Error(errSyntax)
			return
		}
		if n == math.MinInt64 {
			c.R.Error(errBelow)
			return
		}
		if values = len(a) == 4; values && (n < math.MinInt64/2 || n > math.MaxInt64/2) {
			c.R.Error(errTooLarge)
			return
		}
	}
	h, ok := c.hash(a[1])
	switch {
	case !ok:
	case len(a) == 2 && h.Len() == 0:
		c.R.Null()
	case len(a) == 2:
		c.db.RandomField(h, func(field, _ []byte) { c.R.Bulk(field) })
	case h.Len() == 0 || n == 0:
		c.R.Array(0)
	default:
		c.replyFields(c.chooseFields(h, n), values)
	}
}

// chooseFields chooses n fields that differ, or, of a negative n, as many that need
// not. It returns them with their values.
func (c *Client) chooseFields(h *store.HashRef, n int64) (list [][2][]byte) {
	add := func(field, value []byte) {
		list = append(list, [2][]byte{bytes.Clone(field), bytes.Clone(value)})
	}
	if n < 0 {
		for i := min(-n, 1<<20); i > 0 && !c.db.Failed(); i-- {
			c.db.RandomField(h, add)
		}
		return list
	}
	seen := 0 // a sample of what comes by
	c.db.Fields(h, nil, 0, func(field, value []byte) {
		seen++
		if int64(len(list)) < n {
			add(field, value)
		} else if i := rand.IntN(seen); int64(i) < n {
			list[i] = [2][]byte{bytes.Clone(field), bytes.Clone(value)}
		}
	})
	return list
}

func (c *Client) replyFields(list [][2][]byte, values bool) {
	if values && !c.R.V3 {
		c.R.Array(2 * len(list))
	} else {
		c.R.Array(len(list))
	}
	for _, f := range list {
		if values && c.R.V3 {
			c.R.Array(2)
		}
		c.R.Bulk(f[0])
		if values {
			c.R.Bulk(f[1])
		}
	}
}
