package command

import (
	"fmt"
	"math"

	"github.com/pastenet/paste/internal/redisd/store"
)

// claiming is how entries change hands.
type claiming struct {
	idle    int64 // ms for which they must have been with their consumer
	at      int64 // when they were delivered, as it is noted
	retries int64 // deliveries, or -1 for one more
	force   bool
	justID  bool
	last    store.ID
}

// parse reads the options of XCLAIM.
func (o *claiming) parse(c *Client, a [][]byte) (ok bool) {
	for i := 0; i < len(a); i++ {
		more := i+1 < len(a)
		var n int64
		switch {
		case is(a[i], "FORCE"):
			o.force = true
			continue
		case is(a[i], "JUSTID"):
			o.justID = true
			continue
		case is(a[i], "IDLE") && more:
			if n, ok = c.claimInt(a[i+1], "ERR Invalid IDLE option argument for XCLAIM"); ok {
				o.at = c.db.Now - n
			}
		case is(a[i], "TIME") && more:
			o.at, ok = c.claimInt(a[i+1], "ERR Invalid TIME option argument for XCLAIM")
		case is(a[i], "RETRYCOUNT") && more:
			o.retries, ok = c.claimInt(a[i+1], "ERR Invalid RETRYCOUNT option argument for XCLAIM")
		case is(a[i], "LASTID") && more:
			o.last, ok = c.streamID(a[i+1], 0)
		default:
			c.R.Error(fmt.Sprintf("ERR Unrecognized XCLAIM option '%s'", a[i]))
			return false
		}
		if !ok {
			return false
		}
		i++
	}
	if o.at < 0 || o.at > c.db.Now {
		o.at = c.db.Now
	}
	return true
}

func (c *Client) claimInt(b []byte, problem string) (n int64, ok bool) {
	if !isInt(b) {
		c.R.Error(problem)
		return 0, false
	}
	return c.int(b)
}

// minIdle reads for how long entries must not have been touched.
func (c *Client) minIdle(b []byte, command string) (n int64, ok bool) {
	if n, ok = c.claimInt(b, "ERR Invalid min-idle-time argument for "+command); ok {
		n = max(n, 0)
	}
	return n, ok
}

// take gives an entry to a consumer, and answers with it. there is false if it was
// deleted, and is no entry of the group any more then.
func (o *claiming) take(c *Client, s *store.StreamRef, g *store.Group, who *store.Consumer, p store.Pending) (there bool) {
	mark := len(c.R.B)
	if there = c.db.Entry(s, p.ID, func(fields []byte) { c.replyEntry(p.ID, fields) }); !there {
		c.R.B = c.R.B[:mark]
		c.db.Forget(g, who, p)
		return false
	}
	if o.justID {
		c.R.B = c.R.B[:mark]
		c.replyID(p.ID)
	}
	switch {
	case o.retries >= 0:
		p.Count = uint64(o.retries)
	case !o.justID:
		p.Count++
	}
	p.Time, p.Consumer = o.at, who.Name
	c.db.Deliver(g, who, p)
	return true
}

// claimed stores what has become of a group, and of a consumer that has got n
// entries; one that has got none is not made for that.
func (c *Client) claimed(g *store.Group, who *store.Consumer, n int) {
	if n > 0 {
		who.Seen = c.db.Now
	}
	if n > 0 || !who.Fresh {
		c.db.PutConsumer(g, who)
	}
	c.db.PutGroup(g)
}

func xClaim(c *Client, a [][]byte) {
	s, g, ok := c.groupOf(a[1], a[2])
	if !ok {
		return
	}
	o := claiming{at: c.db.Now, retries: -1}
	if o.idle, ok = c.minIdle(a[4], "XCLAIM"); !ok {
		return
	}
	var ids []store.ID
	i := 5
	for ; i < len(a); i++ {
		id, ok := parseID(a[i], 0)
		if !ok {
			break
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 && i < len(a) && !o.parse(c, a[i:]) || len(ids) > 0 && !o.parse(c, a[i:]) {
		return
	}
	if g.Last.Less(o.last) {
		g.Last = o.last
	}
	who := c.db.ConsumerOf(g, a[3], true)
	at, n := c.R.Later(), 0
	seen := map[store.ID]bool{}
	for _, id := range ids {
		if seen[id] {
			continue
		}
		seen[id] = true
		p, found := c.db.PendingAt(g, id)
		switch {
		case !found && !o.force:
			continue
		case !found:
			if !c.db.Entry(s, id, func([]byte) {}) {
				continue
			}
			p = store.Pending{ID: id}
		case o.idle > 0 && c.db.Now-p.Time < o.idle:
			continue
		}
		if o.take(c, s, g, who, p) {
			n++
		}
	}
	c.R.SetLater(at, '*', n)
	c.claimed(g, who, n)
}

func xAutoClaim(c *Client, a [][]byte) {
	o := claiming{at: c.db.Now, retries: -1}
	var ok bool
	if o.idle, ok = c.minIdle(a[4], "XAUTOCLAIM"); !ok {
		return
	}
	from, ok := c.bound(a[5], true)
	if !ok {
		return
	}
	count := int64(100)
	for i := 6; i < len(a); i++ {
		switch {
		case is(a[i], "COUNT") && i+1 < len(a):
			if count, ok = c.int(a[i+1]); ok && (count < 1 || count > math.MaxInt64/16) {
				c.R.Error("ERR COUNT must be > 0")
				ok = false
			}
			if !ok {
				return
			}
			i++
		case is(a[i], "JUSTID"):
			o.justID = true
		default:
			c.R.Error(errSyntax)
			return
		}
	}
	s, g, ok := c.groupOf(a[1], a[2])
	if !ok {
		return
	}
	c.autoClaim(&o, s, g, a[3], from, count)
}

func (c *Client) autoClaim(o *claiming, s *store.StreamRef, g *store.Group, consumer []byte, from store.ID, count int64) {
	who := c.db.ConsumerOf(g, consumer, true)
	left, attempts := count, 10*count
	var list []store.Pending
	next := store.MinID
	c.db.PendingOf(g, from, store.MaxID, func(p store.Pending) bool {
		if attempts == 0 || left == 0 {
			next = p.ID
			return false
		}
		attempts--
		if o.idle > 0 && c.db.Now-p.Time < o.idle {
			return true
		}
		list = append(list, p)
		left--
		return true
	})
	c.R.Array(3)
	c.replyID(next)
	at, n := c.R.Later(), 0
	var gone []store.ID
	for _, p := range list {
		if o.take(c, s, g, who, p) {
			n++
		} else {
			gone = append(gone, p.ID)
		}
	}
	c.R.SetLater(at, '*', n)
	c.R.Array(len(gone))
	for _, id := range gone {
		c.replyID(id)
	}
	c.claimed(g, who, n)
}
