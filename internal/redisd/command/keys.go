package command

import (
	"math"
	"strings"

	"github.com/pastenet/paste/internal/redisd/store"
)

func keyCommands() []Command {
	return []Command{
		{name: "del", do: del, arity: -2, flags: write, first: 1, last: -1, step: 1},
		{name: "unlink", do: del, arity: -2, flags: write | fast, first: 1, last: -1, step: 1},
		{name: "exists", do: exists, arity: -2, flags: readonly | fast, first: 1, last: -1, step: 1},
		{name: "touch", do: exists, arity: -2, flags: readonly | fast, first: 1, last: -1, step: 1},
		{name: "type", do: typeOf, arity: 2, flags: readonly | fast, first: 1, last: 1, step: 1},
		{name: "expire", do: expire, arity: -3, flags: write | fast, first: 1, last: 1, step: 1},
		{name: "pexpire", do: expire, arity: -3, flags: write | fast, first: 1, last: 1, step: 1},
		{name: "expireat", do: expire, arity: -3, flags: write | fast, first: 1, last: 1, step: 1},
		{name: "pexpireat", do: expire, arity: -3, flags: write | fast, first: 1, last: 1, step: 1},
		{name: "ttl", do: ttl, arity: 2, flags: readonly | fast, first: 1, last: 1, step: 1},
		{name: "pttl", do: ttl, arity: 2, flags: readonly | fast, first: 1, last: 1, step: 1},
		{name: "expiretime", do: ttl, arity: 2, flags: readonly | fast, first: 1, last: 1, step: 1},
		{name: "pexpiretime", do: ttl, arity: 2, flags: readonly | fast, first: 1, last: 1, step: 1},
		{name: "persist", do: persist, arity: 2, flags: write | fast, first: 1, last: 1, step: 1},
		{name: "rename", do: rename, arity: 3, flags: write, first: 1, last: 2, step: 1},
		{name: "renamenx", do: renameNX, arity: 3, flags: write | fast, first: 1, last: 2, step: 1},
		{name: "scan", do: scan, arity: -2, flags: readonly},
		{name: "keys", do: keys, arity: 2, flags: readonly},
		{name: "dbsize", do: dbSize, arity: 1, flags: readonly | fast},
		{name: "randomkey", do: randomKey, arity: 1, flags: readonly},
		{name: "flushdb", do: flush, arity: -1, flags: write},
		{name: "flushall", do: flush, arity: -1, flags: write},
		{name: "object", do: object, arity: -2, flags: readonly, first: 2, last: 2, step: 1},
	}
}

// once returns the first of each of several names.
func once(names [][]byte) [][]byte {
	if len(names) == 1 {
		return names
	}
	seen := make(map[string]struct{}, len(names))
	kept := make([][]byte, 0, len(names))
	for _, n := range names {
		if _, ok := seen[string(n)]; !ok {
			seen[string(n)] = struct{}{}
			kept = append(kept, n)
		}
	}
	return kept
}

func del(c *Client, a [][]byte) {
	n := 0
	for _, name := range once(a[1:]) {
		if it := c.db.Find(name); it.Kind != store.None {
			c.db.Delete(name, it)
			n++
		}
	}
	c.R.Int(int64(n))
}

func exists(c *Client, a [][]byte) {
	n := 0
	for _, name := range a[1:] {
		if c.db.Find(name).Kind != store.None {
			n++
		}
	}
	c.R.Int(int64(n))
}

func typeOf(c *Client, a [][]byte) { c.R.Status(c.db.Find(a[1]).Kind.String()) }

// expireOptions are NX, XX, GT and LT.
type expireOptions struct{ nx, xx, gt, lt bool }

func (o *expireOptions) parse(a [][]byte) (problem string) {
	for _, w := range a {
		switch {
		case is(w, "NX"):
			o.nx = true
		case is(w, "XX"):
			o.xx = true
		case is(w, "GT"):
			o.gt = true
		case is(w, "LT"):
			o.lt = true
		default:
			return "ERR Unsupported option " + string(w)
		}
	}
	switch {
	case o.nx && (o.xx || o.gt || o.lt):
		return "ERR NX and XX, GT or LT options at the same time are not compatible"
	case o.gt && o.lt:
		return "ERR GT and LT options at the same time are not compatible"
	}
	return ""
}

// forbid reports whether the options forbid to change from one time to another.
func (o *expireOptions) forbid(from, to int64) bool {
	never := from == 0
	switch {
	case o.nx && !never, o.xx && never:
		return true
	case o.gt:
		return never || to <= from
	case o.lt:
		return !never && to >= from
	}
	return false
}

func expire(c *Client, a [][]byte) {
	name := strings.ToLower(string(a[0]))
	var o expireOptions
	if problem := o.parse(a[3:]); problem != "" {
		c.R.Error(problem)
		return
	}
	n, ok := c.int(a[2])
	if !ok {
		return
	}
	bad := false
	if name[0] == 'e' { // in seconds
		bad = n > math.MaxInt64/1000 || n < math.MinInt64/1000
		n *= 1000
	}
	if !strings.HasSuffix(name, "at") && !bad {
		n, ok = sum(n, c.db.Now)
		bad = !ok
	}
	if bad {
		c.R.Error("ERR invalid expire time in '" + name + "' command")
		return
	}
	it := c.db.Find(a[1])
	switch {
	case it.Kind == store.None, o.forbid(it.At, n):
		c.R.Int(0)
		return
	case n <= c.db.Now:
		c.db.Delete(a[1], it)
	default:
		c.db.SetExpiry(a[1], it, n)
	}
	c.R.Int(1)
}

func ttl(c *Client, a [][]byte) {
	name := strings.ToLower(string(a[0]))
	it := c.db.Find(a[1])
	switch {
	case it.Kind == store.None:
		c.R.Int(-2)
		return
	case it.At == 0:
		c.R.Int(-1)
		return
	}
	n := it.At
	if strings.HasSuffix(name, "ttl") {
		n = max(n-c.db.Now, 0)
	}
	if name[0] != 'p' {
		n = (n + 500) / 1000
	}
	c.R.Int(n)
}

func persist(c *Client, a [][]byte) {
	it := c.db.Find(a[1])
	if it.At != 0 {
		c.db.SetExpiry(a[1], it, 0)
	}
	c.R.Flag(it.At != 0)
}

func rename(c *Client, a [][]byte) {
	if c.db.Find(a[1]).Kind == store.None {
		c.R.Error(errNoKey)
		return
	}
	c.db.Rename(a[1], a[2])
	c.db.Signal(a[2])
	c.R.OK()
}

func renameNX(c *Client, a [][]byte) {
	if c.db.Find(a[1]).Kind == store.None {
		c.R.Error(errNoKey)
		return
	}
	if c.db.Find(a[2]).Kind != store.None {
		c.R.Int(0)
		return
	}
	c.db.Rename(a[1], a[2])
	c.db.Signal(a[2])
	c.R.Int(1)
}

func dbSize(c *Client, _ [][]byte) { c.R.Int(int64(c.db.Len())) }

func randomKey(c *Client, _ [][]byte) {
	if name := c.db.Random(); name != nil {
		c.R.Bulk(name)
		return
	}
	c.R.Null()
}

func flush(c *Client, a [][]byte) {
	if len(a) > 2 || len(a) == 2 && !is(a[1], "SYNC") && !is(a[1], "ASYNC") {
		c.R.Error(errSyntax)
		return
	}
	c.db.Clear()
	c.R.OK()
}

func object(c *Client, a [][]byte) {
	c.sub(a, []subCommand{
		{"ENCODING", 3, func(c *Client, a [][]byte) {
			if it := c.db.Find(a[2]); it.Kind == store.None {
				c.R.Null()
			} else {
				c.R.Text(encoding(c, a[2], it))
			}
		}},
		{"REFCOUNT", 3, func(c *Client, a [][]byte) {
			if c.db.Find(a[2]).Kind == store.None {
				c.R.Null()
			} else {
				c.R.Int(1)
			}
		}},
		{"HELP", 2, func(c *Client, a [][]byte) { c.help("OBJECT", "ENCODING <key>", "REFCOUNT <key>") }},
	})
}

// encoding is what Redis would have kept the value as.
func encoding(c *Client, name []byte, it store.Item) string {
	switch it.Kind {
	case store.Hash:
		if c.db.HashAt(name, it).Len() <= 512 {
			return "listpack"
		}
		return "hashtable"
	case store.Stream:
		return "stream"
	}
	switch b := it.Bytes(); {
	case isInt(b):
		return "int"
	case len(b) <= 44:
		return "embstr"
	}
	return "raw"
}
