package command

import (
	"fmt"
	"strings"
)

// Command is one of those that are offered.
type Command struct {
	name, upper       string
	do                func(c *Client, a [][]byte)
	arity             int // arguments with the name; less than 0: at least
	flags             flags
	first, last, step int // where the names are
	calls             uint64
}

// flags say what a command does, and when it may be given.
type flags uint16

const (
	write flags = 1 << iota
	readonly
	denyOOM
	fast
	admin
	noAuth  // before AUTH
	inMulti // done at once also within a transaction
	noMulti
	blocking
)

var flagNames = []struct {
	flag flags
	name string
}{
	{write, "write"}, {readonly, "readonly"}, {denyOOM, "denyoom"}, {admin, "admin"},
	{noAuth, "no_auth"}, {noMulti, "no_multi"}, {blocking, "blocking"}, {fast, "fast"},
}

func (f flags) has(g flags) bool { return f&g != 0 }

func (f flags) names() (list []string) {
	for _, n := range flagNames {
		if f.has(n.flag) {
			list = append(list, n.name)
		}
	}
	return list
}

// table has the commands by name, in lower case.
var table = map[string]*Command{}

func define(lists ...[]Command) {
	for _, list := range lists {
		for i := range list {
			list[i].upper = strings.ToUpper(list[i].name)
			table[list[i].name] = &list[i]
		}
	}
}

func init() {
	define(stringCommands(), numberCommands(), keyCommands(), hashCommands(), streamCommands(), groupCommands(), txCommands(), serverCommands())
}

// again is lookUp for a client that most likely gives the command once more that it
// gave before.
func (c *Client) again(args [][]byte) (_ *Command, problem string) {
	cmd := c.last
	if cmd == nil || !is(args[0], cmd.upper) || cmd.arity > 0 && len(args) != cmd.arity || len(args) < -cmd.arity {
		return lookUp(args)
	}
	return cmd, ""
}

// lookUp finds a command, or says why it cannot be done.
func lookUp(args [][]byte) (_ *Command, problem string) {
	var low [32]byte
	n := len(args[0])
	if n > len(low) {
		return nil, unknown(args)
	}
	for i, b := range args[0] {
		if b >= 'A' && b <= 'Z' {
			b += 'a' - 'A'
		}
		low[i] = b
	}
	cmd := table[string(low[:n])]
	switch {
	case cmd == nil:
		return nil, unknown(args)
	case cmd.arity > 0 && len(args) != cmd.arity || cmd.arity < 0 && len(args) < -cmd.arity:
		return nil, wrongArgs(cmd.name)
	}
	return cmd, ""
}

func wrongArgs(name string) string {
	return "ERR wrong number of arguments for '" + name + "' command"
}

func unknown(args [][]byte) string {
	var b strings.Builder
	for _, a := range args[1:] {
		if b.Len() >= 128 {
			break
		}
		fmt.Fprintf(&b, "'%.*s' ", 128-b.Len(), a)
	}
	return fmt.Sprintf("ERR unknown command '%.128s', with args beginning with: %s", args[0], b.String())
}

// is compares an argument with a word in upper case.
func is(b []byte, word string) bool {
	if len(b) != len(word) {
		return false
	}
	for i := range b {
		x := b[i]
		if x >= 'a' && x <= 'z' {
			x -= 'a' - 'A'
		}
		if x != word[i] {
			return false
		}
	}
	return true
}

// sub finds one of a command's sub-commands, which are in upper case.
func (c *Client) sub(a [][]byte, subs []subCommand) {
	name := strings.ToLower(string(a[0]))
	for _, s := range subs {
		if !is(a[1], s.name) {
			continue
		}
		if s.arity > 0 && len(a) != s.arity || s.arity < 0 && len(a) < -s.arity {
			c.R.Error(wrongArgs(name + "|" + strings.ToLower(s.name)))
			return
		}
		s.do(c, a)
		return
	}
	c.R.Error(fmt.Sprintf("ERR unknown subcommand '%.128s'. Try %s HELP.", a[1], strings.ToUpper(name)))
}

type subCommand struct {
	name  string
	arity int // as a Command's
	do    func(c *Client, a [][]byte)
}
