package command

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// command is COMMAND: what the server offers.
func command(c *Client, a [][]byte) {
	if len(a) == 1 {
		c.R.Array(len(table))
		for _, name := range slices.Sorted(maps.Keys(table)) {
			c.replyCommand(table[name])
		}
		return
	}
	c.sub(a, []subCommand{
		{"COUNT", 2, func(c *Client, _ [][]byte) { c.R.Int(int64(len(table))) }},
		{"LIST", -2, commandList},
		{"INFO", -2, commandInfo},
		{"DOCS", -2, commandDocs},
		{"GETKEYS", -4, commandGetKeys},
	})
}

func (c *Client) replyCommand(cmd *Command) {
	if cmd == nil {
		c.R.NullArray()
		return
	}
	c.R.Array(6)
	c.R.Text(cmd.name)
	c.R.Int(int64(cmd.arity))
	names := cmd.flags.names()
	c.R.Set(len(names))
	for _, n := range names {
		c.R.Status(n)
	}
	c.R.Int(int64(cmd.first))
	c.R.Int(int64(cmd.last))
	c.R.Int(int64(cmd.step))
}

func commandInfo(c *Client, a [][]byte) {
	if len(a) == 2 {
		command(c, a[:1])
		return
	}
	c.R.Array(len(a) - 2)
	for _, name := range a[2:] {
		c.replyCommand(table[strings.ToLower(string(name))])
	}
}

func commandList(c *Client, a [][]byte) {
	keep := func(string) bool { return true }
	switch {
	case len(a) == 2:
	case len(a) == 5 && is(a[2], "FILTERBY") && is(a[3], "PATTERN"):
		keep = func(name string) bool { return Match(a[4], []byte(name)) }
	case len(a) == 5 && is(a[2], "FILTERBY") && (is(a[3], "MODULE") || is(a[3], "ACLCAT")):
		keep = func(string) bool { return false }
	default:
		c.R.Error(errSyntax)
		return
	}
	at, n := c.R.Later(), 0
	for _, name := range slices.Sorted(maps.Keys(table)) {
		if keep(name) {
			c.R.Text(name)
			n++
		}
	}
	c.R.SetLater(at, '*', n)
}

func commandDocs(c *Client, a [][]byte) {
	names := slices.Sorted(maps.Keys(table))
	if len(a) > 2 {
		names = names[:0]
		for _, b := range a[2:] {
			if name := strings.ToLower(string(b)); table[name] != nil {
				names = append(names, name)
			}
		}
	}
	c.R.Map(len(names))
	for _, name := range names {
		c.R.Text(name)
		c.R.Map(1)
		c.R.Text("summary")
		c.R.Text(fmt.Sprintf("As in Redis %s; see docs/redis.md for what differs.", Version))
	}
}

func commandGetKeys(c *Client, a [][]byte) {
	cmd, problem := lookUp(a[2:])
	switch {
	case cmd == nil && strings.HasPrefix(problem, "ERR unknown"):
		c.R.Error("ERR Invalid command specified")
		return
	case cmd == nil:
		c.R.Error("ERR Invalid number of arguments specified for command")
		return
	case cmd.first == 0:
		c.R.Error("ERR The command has no key arguments")
		return
	}
	last := cmd.last
	if last < 0 {
		last += len(a) - 2
	}
	at, n := c.R.Later(), 0
	for i := cmd.first; i <= last; i += cmd.step {
		c.R.Bulk(a[2+i])
		n++
	}
	c.R.SetLater(at, '*', n)
}
