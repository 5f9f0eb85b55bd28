package command

import (
	"bytes"
	"math"

	"github.com/pastenet/paste/internal/redisd/store"
)

func xPending(c *Client, a [][]byte) {
	if len(a) == 3 {
		if _, g, ok := c.groupOf(a[1], a[2]); ok {
			c.summary(g)
		}
		return
	}
	i, idle := 3, int64(0)
	if is(a[3], "IDLE") {
		var ok bool
		if len(a) < 5 {
			c.R.Error(errSyntax)
			return
		}
		if idle, ok = c.int(a[4]); !ok {
			return
		}
		i = 5
	}
	if len(a) < i+3 || len(a) > i+4 {
		c.R.Error(errSyntax)
		return
	}
	count, ok := c.int(a[i+2])
	if !ok {
		return
	}
	count = min(max(count, 0), math.MaxInt32)
	from, ok := c.bound(a[i], true)
	if !ok {
		return
	}
	to, ok := c.bound(a[i+1], false)
	if !ok {
		return
	}
	_, g, ok := c.groupOf(a[1], a[2])
	if !ok {
		return
	}
	at, n := c.R.Later(), int64(0)
	c.db.PendingOf(g, from, to, func(p store.Pending) bool {
		if n == count {
			return false
		}
		since := max(c.db.Now-p.Time, 0)
		if len(a) == i+4 && !bytes.Equal(p.Consumer, a[i+3]) || since < idle {
			return true
		}
		c.R.Array(4)
		c.replyID(p.ID)
		c.R.Bulk(p.Consumer)
		c.R.Int(since)
		c.R.Int(int64(p.Count))
		n++
		return true
	})
	c.R.SetLater(at, '*', int(n))
}

// summary is XPENDING without a range.
func (c *Client) summary(g *store.Group) {
	c.R.Array(4)
	c.R.Int(int64(g.Pending))
	if g.Pending == 0 {
		c.R.Null()
		c.R.Null()
		c.R.NullArray()
		return
	}
	var first, last store.ID
	n := 0
	c.db.PendingOf(g, store.MinID, store.MaxID, func(p store.Pending) bool {
		if n == 0 {
			first = p.ID
		}
		last = p.ID
		n++
		return true
	})
	c.replyID(first)
	c.replyID(last)
	at, listed := c.R.Later(), 0
	for _, who := range c.db.Consumers(g) {
		if who.Pending > 0 {
			c.R.Array(2)
			c.R.Bulk(who.Name)
			c.R.Text(itoa(int64(who.Pending)))
			listed++
		}
	}
	c.R.SetLater(at, '*', listed)
}
