package command

import (
	"bytes"
	"fmt"
	"math"

	"github.com/pastenet/paste/internal/redisd/resp"
	"github.com/pastenet/paste/internal/redisd/store"
)

// reading is a command that reads streams.
type reading struct {
	names    [][]byte
	from     []store.ID // behind which
	fresh    []bool     // of a group: what nobody was given yet (">")
	count    int
	block    int64 // ms, or -1
	group    []byte
	consumer []byte
	noAck    bool
}

func xRead(c *Client, a [][]byte) { c.read(a, false) }

func (c *Client) read(a [][]byte, grouped bool) {
	r := &reading{block: -1}
	at, ok := c.parseRead(r, a, grouped)
	if !ok {
		return
	}
	n := (len(a) - at) / 2
	for i := range n {
		r.names = append(r.names, bytes.Clone(a[at+i]))
		if ok := c.readFrom(r, a[at+i], a[at+n+i]); !ok {
			return
		}
	}
	if r.try(c) {
		return
	}
	if r.block < 0 || c.executing {
		c.R.NullArray()
		return
	}
	c.waitFor(r.names, r.block, r.try)
}

// parseRead reads the options, and returns where the names begin.
func (c *Client) parseRead(r *reading, a [][]byte, grouped bool) (at int, ok bool) {
	for i := 1; i < len(a); i++ {
		more := len(a) - i - 1
		switch {
		case is(a[i], "BLOCK") && more > 0:
			if r.block, ok = resp.ParseInt(a[i+1]); !ok {
				c.R.Error("ERR timeout is not an integer or out of range")
				return 0, false
			}
			if r.block < 0 {
				c.R.Error("ERR timeout is negative")
				return 0, false
			}
			i++
		case is(a[i], "COUNT") && more > 0:
			n, ok := c.int(a[i+1])
			if !ok {
				return 0, false
			}
			r.count = int(min(max(n, 0), math.MaxInt32))
			i++
		case is(a[i], "STREAMS") && more > 0:
			if more%2 != 0 {
				c.R.Error("ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.")
				return 0, false
			}
			if grouped && r.group == nil {
				c.R.Error("ERR Missing GROUP option for XREADGROUP")
				return 0, false
			}
			return i + 1, true
		case is(a[i], "GROUP") && more >= 2:
			if !grouped {
				c.R.Error("ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.")
				return 0, false
			}
			r.group, r.consumer = bytes.Clone(a[i+1]), bytes.Clone(a[i+2])
			i += 2
		case is(a[i], "NOACK"):
			if !grouped {
				c.R.Error("ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.")
				return 0, false
			}
			r.noAck = true
		default:
			c.R.Error(errSyntax)
			return 0, false
		}
	}
	c.R.Error(errSyntax)
	return 0, false
}

// readFrom reads an ID behind which entries are wanted.
func (c *Client) readFrom(r *reading, name, b []byte) (ok bool) {
	s, _, ok := c.stream(name)
	if !ok {
		return false
	}
	if r.group != nil && c.db.GroupOf(s, r.group) == nil {
		c.R.Error(fmt.Sprintf("NOGROUP No such key '%s' or consumer group '%s' in XREADGROUP with GROUP option", name, r.group))
		return false
	}
	var id store.ID
	fresh := false
	switch string(b) {
	case "$":
		if r.group != nil {
			c.R.Error("ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set.")
			return false
		}
		id = s.Last
	case ">":
		if r.group == nil {
			c.R.Error("ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.")
			return false
		}
		fresh = true
	default:
		if id, ok = c.streamID(b, 0); !ok {
			return false
		}
	}
	r.from = append(r.from, id)
	r.fresh = append(r.fresh, fresh)
	return true
}

// try answers if there is something, and reports whether it did.
func (r *reading) try(c *Client) bool {
	mark := len(c.R.B)
	at, n := c.R.Later(), 0
	for i, name := range r.names {
		it := c.db.Find(name)
		if problem := r.problem(it); problem != "" {
			c.R.B = c.R.B[:mark]
			c.R.Error(problem)
			return true
		}
		s := c.db.StreamAt(name, it)
		if r.group != nil && c.db.GroupOf(s, r.group) == nil {
			c.R.B = c.R.B[:mark]
			c.R.Error("NOGROUP the consumer group this client was blocked on no longer exists")
			return true
		}
		before := len(c.R.B)
		if !c.R.V3 {
			c.R.Array(2)
		}
		c.R.Bulk(name)
		var some bool
		if r.group != nil {
			some = r.grouped(c, s, i)
		} else {
			some = r.plain(c, s, i)
		}
		if !some {
			c.R.B = c.R.B[:before]
			continue
		}
		n++
	}
	if n == 0 {
		c.R.B = c.R.B[:mark]
		return false
	}
	kind := byte('*')
	if c.R.V3 {
		kind = '%'
	}
	c.R.SetLater(at, kind, n)
	return true
}

// problem says why a client that has waited cannot wait for a name any more.
func (r *reading) problem(it store.Item) string {
	switch {
	case it.Kind == store.Stream, it.Kind == store.None && r.group == nil:
		return ""
	case r.group == nil:
		return errType
	}
	return "UNBLOCKED the stream key no longer exists"
}

func (r *reading) plain(c *Client, s *store.StreamRef, i int) (some bool) {
	from, ok := r.from[i].Next()
	if !ok {
		return false
	}
	at, n := c.R.Later(), 0
	c.db.Entries(s, from, store.MaxID, false, func(id store.ID, fields []byte) bool {
		c.replyEntry(id, fields)
		n++
		return n != r.count
	})
	c.R.SetLater(at, '*', n)
	return n > 0
}

// grouped reads for a consumer: what it has not acknowledged, or what nobody was
// given.
func (r *reading) grouped(c *Client, s *store.StreamRef, i int) (some bool) {
	g := c.db.GroupOf(s, r.group)
	if g == nil {
		return false // an error was noted
	}
	who := c.db.ConsumerOf(g, r.consumer, true)
	if who.Fresh && !r.fresh[i] {
		c.db.PutConsumer(g, who)
	}
	if !r.fresh[i] {
		r.history(c, s, g, i)
		return true
	}
	from, ok := g.Last.Next()
	if !ok {
		return false
	}
	at, n := c.R.Later(), 0
	var ids []store.ID
	c.db.Entries(s, from, store.MaxID, false, func(id store.ID, fields []byte) bool {
		c.replyEntry(id, fields)
		ids = append(ids, id)
		n++
		return n != r.count
	})
	c.R.SetLater(at, '*', n)
	who.Seen = c.db.Now
	for _, id := range ids {
		g.Read = c.readOne(s, g, id)
		g.Last = id
		if !r.noAck {
			c.db.Deliver(g, who, store.Pending{ID: id, Time: c.db.Now, Count: 1, Consumer: who.Name})
		}
	}
	if n > 0 {
		c.db.PutGroup(g)
		c.db.PutConsumer(g, who)
	}
	return n > 0
}

// readOne counts one more entry that a group has read.
func (c *Client) readOne(s *store.StreamRef, g *store.Group, id store.ID) int64 {
	next, _ := id.Next()
	if g.Read >= 0 && !s.Tombstones(next) {
		return g.Read + 1
	}
	return c.db.Distance(s, id)
}

func (r *reading) history(c *Client, s *store.StreamRef, g *store.Group, i int) {
	at, n := c.R.Later(), 0
	from, ok := r.from[i].Next()
	var list []store.Pending
	if ok {
		c.db.PendingOf(g, from, store.MaxID, func(p store.Pending) bool {
			if bytes.Equal(p.Consumer, r.consumer) {
				list = append(list, p)
			}
			return r.count == 0 || len(list) < r.count
		})
	}
	for _, p := range list {
		n++
		if c.db.Entry(s, p.ID, func(fields []byte) { c.replyEntry(p.ID, fields) }) {
			p.Time, p.Count = c.db.Now, p.Count+1
			c.db.PutPending(g, p)
			continue
		}
		c.R.Array(2)
		c.replyID(p.ID)
		c.R.NullArray()
	}
	c.R.SetLater(at, '*', n)
}
