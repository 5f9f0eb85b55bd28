package command

import (
	"bytes"
	"fmt"

	"github.com/pastenet/paste/internal/redisd/store"
)

func groupCommands() []Command {
	return []Command{
		{name: "xgroup", do: xGroup, arity: -2, flags: write | denyOOM, first: 2, last: 2, step: 1},
		{name: "xreadgroup", do: func(c *Client, a [][]byte) { c.read(a, true) }, arity: -7, flags: write | blocking},
		{name: "xack", do: xAck, arity: -4, flags: write | fast, first: 1, last: 1, step: 1},
		{name: "xpending", do: xPending, arity: -3, flags: readonly, first: 1, last: 1, step: 1},
		{name: "xclaim", do: xClaim, arity: -6, flags: write | fast, first: 1, last: 1, step: 1},
		{name: "xautoclaim", do: xAutoClaim, arity: -6, flags: write | fast, first: 1, last: 1, step: 1},
	}
}

var groupSubs = []subCommand{
	{"CREATE", -5, xGroupCreate},
	{"SETID", -5, xGroupSetID},
	{"DESTROY", 4, xGroupDestroy},
	{"CREATECONSUMER", 5, xGroupCreateConsumer},
	{"DELCONSUMER", 5, xGroupDelConsumer},
	{"HELP", 2, func(c *Client, _ [][]byte) {
		c.help("XGROUP", "CREATE <key> <groupname> <id|$> [option]", "CREATECONSUMER <key> <groupname> <consumer>",
			"DELCONSUMER <key> <groupname> <consumer>", "DESTROY <key> <groupname>", "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]")
	}},
}

func xGroup(c *Client, a [][]byte) { c.sub(a, groupSubs) }

const errNoStream = "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to create an empty stream automatically."

func noGroup(group, name []byte) string {
	return fmt.Sprintf("NOGROUP No such consumer group '%s' for key name '%s'", group, name)
}

// groupAt looks up the group that a sub-command of XGROUP is about.
func (c *Client) groupAt(a [][]byte) (s *store.StreamRef, g *store.Group, ok bool) {
	s, there, ok := c.stream(a[2])
	if !ok {
		return nil, nil, false
	}
	if !there {
		c.R.Error(errNoStream)
		return nil, nil, false
	}
	if g = c.db.GroupOf(s, a[3]); g == nil {
		c.R.Error(noGroup(a[3], a[2]))
	}
	return s, g, g != nil
}

// groupOptions reads MKSTREAM and ENTRIESREAD.
func (c *Client) groupOptions(a [][]byte, create bool) (make bool, read int64, ok bool) {
	read = -1
	for i := 0; i < len(a); i++ {
		switch {
		case create && is(a[i], "MKSTREAM"):
			make = true
		case is(a[i], "ENTRIESREAD") && i+1 < len(a):
			if read, ok = c.int(a[i+1]); !ok {
				return false, 0, false
			}
			if read < 0 && read != -1 {
				c.R.Error("ERR value for ENTRIESREAD must be positive or -1")
				return false, 0, false
			}
			i++
		default:
			word := "CREATE"
			if !create {
				word = "SETID"
			}
			c.R.Error("ERR unknown subcommand or wrong number of arguments for '" + word + "'. Try XGROUP HELP.")
			return false, 0, false
		}
	}
	return make, read, true
}

func xGroupCreate(c *Client, a [][]byte) {
	mk, read, ok := c.groupOptions(a[5:], true)
	if !ok {
		return
	}
	s, there, ok := c.stream(a[2])
	if !ok {
		return
	}
	if !there && !mk {
		c.R.Error(errNoStream)
		return
	}
	id := s.Last
	if string(a[4]) != "$" {
		if id, ok = c.streamID(a[4], 0); !ok {
			return
		}
	}
	if c.db.GroupOf(s, a[3]) != nil {
		c.R.Error("BUSYGROUP Consumer Group name already exists")
		return
	}
	if !there {
		c.db.MakeStream(s)
		c.db.StreamDone(s)
	}
	c.db.PutGroup(&store.Group{Stream: s.Object, Name: bytes.Clone(a[3]), Last: id, Read: read})
	c.R.OK()
}

func xGroupSetID(c *Client, a [][]byte) {
	_, read, ok := c.groupOptions(a[5:], false)
	if !ok {
		return
	}
	s, g, ok := c.groupAt(a)
	if !ok {
		return
	}
	id := s.Last
	switch string(a[4]) {
	case "$":
	case "-":
		id = store.MinID
	case "+":
		id = store.MaxID
	default:
		if id, ok = c.streamID(a[4], 0); !ok {
			return
		}
	}
	g.Last, g.Read = id, read
	c.db.PutGroup(g)
	c.R.OK()
}

func xGroupDestroy(c *Client, a [][]byte) {
	s, there, ok := c.stream(a[2])
	if !ok {
		return
	}
	if !there {
		c.R.Error(errNoStream)
		return
	}
	g := c.db.GroupOf(s, a[3])
	if g != nil {
		c.db.RemoveGroup(g)
		c.db.Signal(a[2])
	}
	c.R.Flag(g != nil)
}

func xGroupCreateConsumer(c *Client, a [][]byte) {
	_, g, ok := c.groupAt(a)
	if !ok {
		return
	}
	who := c.db.ConsumerOf(g, a[4], true)
	if who.Fresh {
		c.db.PutConsumer(g, who)
	}
	c.R.Flag(who.Fresh)
}

func xGroupDelConsumer(c *Client, a [][]byte) {
	_, g, ok := c.groupAt(a)
	if !ok {
		return
	}
	n := uint64(0)
	if who := c.db.ConsumerOf(g, a[4], false); who != nil {
		n = c.db.RemoveConsumer(g, who)
		c.db.PutGroup(g)
	}
	c.R.Int(int64(n))
}

func xAck(c *Client, a [][]byte) {
	s, there, ok := c.stream(a[1])
	if !ok {
		return
	}
	var g *store.Group
	if there {
		g = c.db.GroupOf(s, a[2])
	}
	if g == nil {
		c.R.Int(0)
		return
	}
	var ids []store.ID
	for _, b := range a[3:] { // all of them, before anything changes
		id, ok := c.streamID(b, 0)
		if !ok {
			return
		}
		ids = append(ids, id)
	}
	n := 0
	seen := map[store.ID]bool{}
	consumers := map[string]*store.Consumer{}
	for _, id := range ids {
		p, found := c.db.PendingAt(g, id)
		if !found || seen[id] {
			continue
		}
		seen[id] = true
		who := consumers[string(p.Consumer)]
		if who == nil {
			who = c.db.ConsumerOf(g, p.Consumer, true)
			consumers[string(p.Consumer)] = who
		}
		who.Pending--
		g.Pending--
		c.db.RemovePending(g, id)
		n++
	}
	for _, who := range consumers {
		c.db.PutConsumer(g, who)
	}
	if n > 0 {
		c.db.PutGroup(g)
	}
	c.R.Int(int64(n))
}

// groupOf looks up the group of a command like XPENDING.
func (c *Client) groupOf(name, group []byte) (s *store.StreamRef, g *store.Group, ok bool) {
	s, there, ok := c.stream(name)
	if !ok {
		return nil, nil, false
	}
	if there {
		g = c.db.GroupOf(s, group)
	}
	if g == nil {
		c.R.Error(fmt.Sprintf("NOGROUP No such key '%s' or consumer group '%s'", name, group))
	}
	return s, g, g != nil
}
