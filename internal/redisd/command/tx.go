package command

import (
	"bytes"
)

func txCommands() []Command {
	return []Command{
		{name: "multi", do: multi, arity: 1, flags: fast | inMulti},
		{name: "exec", do: exec, arity: 1, flags: inMulti},
		{name: "discard", do: discard, arity: 1, flags: fast | inMulti},
		{name: "watch", do: watch, arity: -2, flags: fast | inMulti, first: 1, last: -1, step: 1},
		{name: "unwatch", do: unwatch, arity: 1, flags: fast},
	}
}

// enqueue keeps a command until EXEC. The arguments do not last.
func (c *Client) enqueue(args [][]byte) {
	n := 0
	for _, a := range args {
		n += len(a)
	}
	room := make([]byte, 0, n)
	kept := make([][]byte, len(args))
	for i, a := range args {
		room = append(room, a...)
		kept[i] = room[len(room)-len(a) : len(room) : len(room)]
	}
	c.queue = append(c.queue, kept)
}

// leave ends a transaction, and what was watched for it.
func (c *Client) leave() {
	c.multi, c.aborted, c.queue = false, false, nil
	c.db.Unwatch(&c.watch)
}

func multi(c *Client, _ [][]byte) {
	if c.multi {
		c.R.Error("ERR MULTI calls can not be nested")
		return
	}
	c.multi = true
	c.R.OK()
}

func discard(c *Client, _ [][]byte) {
	if !c.multi {
		c.R.Error("ERR DISCARD without MULTI")
		return
	}
	c.leave()
	c.R.OK()
}

func watch(c *Client, a [][]byte) {
	if c.multi {
		c.R.Error("ERR WATCH inside MULTI is not allowed")
		return
	}
	for _, name := range a[1:] {
		c.db.Watch(&c.watch, bytes.Clone(name))
	}
	c.R.OK()
}

func unwatch(c *Client, _ [][]byte) {
	c.db.Unwatch(&c.watch)
	c.R.OK()
}

func exec(c *Client, _ [][]byte) {
	if !c.multi {
		c.R.Error("ERR EXEC without MULTI")
		return
	}
	for _, name := range c.watch.Names() {
		c.db.Find([]byte(name)) // what has expired counts as changed
	}
	queue, aborted, hit := c.queue, c.aborted, c.watch.Hit
	c.leave()
	switch {
	case aborted:
		c.R.Error("EXECABORT Transaction discarded because of previous errors.")
		return
	case hit:
		c.R.NullArray()
		return
	}
	if err := c.db.Begin(); err != nil {
		c.db.Fail(err)
		return
	}
	c.executing = true
	c.R.Array(len(queue))
	for _, args := range queue {
		cmd, _ := lookUp(args)
		c.last = cmd
		if err := c.run(cmd, args); err != nil {
			c.db.Fail(err)
			break
		}
	}
	c.executing = false
	c.db.Fail(c.db.End())
}
