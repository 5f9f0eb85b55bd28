package command

import (
	"fmt"

	"github.com/pastenet/paste/internal/redisd/store"
)

func xInfo(c *Client, a [][]byte) {
	c.sub(a, []subCommand{
		{"STREAM", -3, xInfoStream},
		{"GROUPS", 3, xInfoGroups},
		{"CONSUMERS", 4, xInfoConsumers},
		{"HELP", 2, func(c *Client, _ [][]byte) {
			c.help("XINFO", "CONSUMERS <key> <groupname>", "GROUPS <key>", "STREAM <key>")
		}},
	})
}

// thereStream looks up a stream that must be there.
func (c *Client) thereStream(name []byte) (s *store.StreamRef, ok bool) {
	s, there, ok := c.stream(name)
	if ok && !there {
		c.R.Error(errNoKey)
		return nil, false
	}
	return s, ok
}

func xInfoStream(c *Client, a [][]byte) {
	if len(a) != 3 {
		c.R.Error("ERR XINFO STREAM FULL is not supported")
		return
	}
	s, ok := c.thereStream(a[2])
	if !ok {
		return
	}
	first, _ := c.db.First(s)
	nodes := int64(s.Length+node-1) / node
	c.R.Map(10)
	c.R.Text("length")
	c.R.Int(int64(s.Length))
	c.R.Text("radix-tree-keys")
	c.R.Int(nodes)
	c.R.Text("radix-tree-nodes")
	c.R.Int(nodes + 1)
	c.R.Text("last-generated-id")
	c.replyID(s.Last)
	c.R.Text("max-deleted-entry-id")
	c.replyID(s.Deleted)
	c.R.Text("entries-added")
	c.R.Int(int64(s.Added))
	c.R.Text("recorded-first-entry-id")
	c.replyID(first)
	c.R.Text("groups")
	c.R.Int(int64(len(c.db.Groups(s))))
	for _, end := range []struct {
		name string
		back bool
	}{{"first-entry", false}, {"last-entry", true}} {
		c.R.Text(end.name)
		if s.Length == 0 {
			c.R.Null()
			continue
		}
		c.db.Entries(s, store.MinID, store.MaxID, end.back, func(id store.ID, fields []byte) bool {
			c.replyEntry(id, fields)
			return false
		})
	}
}

func xInfoGroups(c *Client, a [][]byte) {
	s, ok := c.thereStream(a[2])
	if !ok {
		return
	}
	groups := c.db.Groups(s)
	c.R.Array(len(groups))
	for _, g := range groups {
		c.R.Map(6)
		c.R.Text("name")
		c.R.Bulk(g.Name)
		c.R.Text("consumers")
		c.R.Int(int64(len(c.db.Consumers(g))))
		c.R.Text("pending")
		c.R.Int(int64(g.Pending))
		c.R.Text("last-delivered-id")
		c.replyID(g.Last)
		c.R.Text("entries-read")
		if g.Read >= 0 {
			c.R.Int(g.Read)
		} else {
			c.R.Null()
		}
		c.R.Text("lag")
		if lag, ok := c.lag(s, g); ok {
			c.R.Int(lag)
		} else {
			c.R.Null()
		}
	}
}

// lag is how many entries a group has before it; ok is false if that cannot be told.
func (c *Client) lag(s *store.StreamRef, g *store.Group) (n int64, ok bool) {
	if s.Added == 0 {
		return 0, true
	}
	read := g.Read
	if next, _ := g.Last.Next(); read < 0 || s.Tombstones(next) {
		read = c.db.Distance(s, g.Last)
	}
	return int64(s.Added) - read, read >= 0
}

func xInfoConsumers(c *Client, a [][]byte) {
	s, ok := c.thereStream(a[2])
	if !ok {
		return
	}
	g := c.db.GroupOf(s, a[3])
	if g == nil {
		c.R.Error(fmt.Sprintf("NOGROUP No such consumer group '%s' for key name '%s'", a[3], a[2]))
		return
	}
	list := c.db.Consumers(g)
	c.R.Array(len(list))
	for _, who := range list {
		c.R.Map(3)
		c.R.Text("name")
		c.R.Bulk(who.Name)
		c.R.Text("pending")
		c.R.Int(int64(who.Pending))
		c.R.Text("idle")
		c.R.Int(max(c.db.Now-who.Seen, 0))
	}
}
