package command

import (
	"math"

	"github.com/pastenet/paste/internal/redisd/store"
	"github.com/pastenet/paste/pmem"
)

func stringCommands() []Command {
	return []Command{
		{name: "get", do: get, arity: 2, flags: readonly | fast, first: 1, last: 1, step: 1},
		{name: "set", do: set, arity: -3, flags: write | denyOOM, first: 1, last: 1, step: 1},
		{name: "setnx", do: setNX, arity: 3, flags: write | denyOOM | fast, first: 1, last: 1, step: 1},
		{name: "setex", do: setEX, arity: 4, flags: write | denyOOM, first: 1, last: 1, step: 1},
		{name: "psetex", do: setEX, arity: 4, flags: write | denyOOM, first: 1, last: 1, step: 1},
		{name: "getset", do: getSet, arity: 3, flags: write | denyOOM | fast, first: 1, last: 1, step: 1},
		{name: "getdel", do: getDel, arity: 2, flags: write | fast, first: 1, last: 1, step: 1},
		{name: "getex", do: getEX, arity: -2, flags: write | fast, first: 1, last: 1, step: 1},
		{name: "mget", do: mGet, arity: -2, flags: readonly | fast, first: 1, last: -1, step: 1},
		{name: "mset", do: mSet, arity: -3, flags: write | denyOOM, first: 1, last: -1, step: 2},
		{name: "msetnx", do: mSetNX, arity: -3, flags: write | denyOOM, first: 1, last: -1, step: 2},
		{name: "append", do: appendTo, arity: 3, flags: write | denyOOM | fast, first: 1, last: 1, step: 1},
		{name: "strlen", do: strLen, arity: 2, flags: readonly | fast, first: 1, last: 1, step: 1},
		{name: "getrange", do: getRange, arity: 4, flags: readonly, first: 1, last: 1, step: 1},
		{name: "substr", do: getRange, arity: 4, flags: readonly, first: 1, last: 1, step: 1},
		{name: "setrange", do: setRange, arity: 4, flags: write | denyOOM, first: 1, last: 1, step: 1},
	}
}

// replyString answers with a string, or with nothing.
func (c *Client) replyString(it store.Item) {
	if it.Kind == store.None {
		c.R.Null()
		return
	}
	if c.s.Verify && !it.Verify() {
		return
	}
	it.Reply(c.R.Bulk, func(f pmem.Fragment) { c.frame(f) })
}

func get(c *Client, a [][]byte) {
	if it, ok := c.find(a[1], store.String); ok {
		c.replyString(it)
	}
}

// setOptions are those of SET and GETEX.
type setOptions struct {
	nx, xx, get, keep, persist bool
	unit                       string // EX, PX, EXAT, PXAT
	time                       []byte
}

func (o *setOptions) parse(a [][]byte, getEX bool) (ok bool) {
	for i := 0; i < len(a); i++ {
		unit := ""
		for _, u := range [...]string{"EX", "PX", "EXAT", "PXAT"} {
			if is(a[i], u) {
				unit = u
			}
		}
		switch w := a[i]; {
		case unit != "" && !o.keep && !o.persist && (o.unit == "" || o.unit == unit) && i+1 < len(a):
			i++
			o.unit, o.time = unit, a[i]
		case !getEX && is(w, "NX") && !o.xx:
			o.nx = true
		case !getEX && is(w, "XX") && !o.nx:
			o.xx = true
		case !getEX && is(w, "GET"):
			o.get = true
		case !getEX && is(w, "KEEPTTL") && o.unit == "":
			o.keep = true
		case getEX && is(w, "PERSIST") && o.unit == "":
			o.persist = true
		default:
			return false
		}
	}
	return true
}

// at is when something expires, by an option's argument.
func (c *Client) at(unit string, arg []byte, command string) (at int64, ok bool) {
	n, ok := c.int(arg)
	if !ok {
		return 0, false
	}
	bad := n <= 0
	if !bad && (unit == "EX" || unit == "EXAT") {
		if n > math.MaxInt64/1000 {
			bad = true
		}
		n *= 1000
	}
	if !bad && (unit == "EX" || unit == "PX") {
		if n > math.MaxInt64-c.db.Now {
			bad = true
		}
		n += c.db.Now
	}
	if bad {
		c.R.Error("ERR invalid expire time in '" + command + "' command")
		return 0, false
	}
	return n, true
}

func set(c *Client, a [][]byte) {
	if len(a) == 3 {
		c.db.Set(a[1], c.db.Find(a[1]), a[2], 0)
		c.R.OK()
		return
	}
	var o setOptions
	if !o.parse(a[3:], false) {
		c.R.Error(errSyntax)
		return
	}
	var at int64
	if o.unit != "" {
		var ok bool
		if at, ok = c.at(o.unit, o.time, "set"); !ok {
			return
		}
	}
	it := c.db.Find(a[1])
	if o.get {
		if it.Kind != store.None && it.Kind != store.String {
			c.R.Error(errType)
			return
		}
		c.replyString(it)
	}
	if o.nx && it.Kind != store.None || o.xx && it.Kind == store.None {
		if !o.get {
			c.R.Null()
		}
		return
	}
	if o.keep {
		at = it.At
	}
	c.db.Set(a[1], it, a[2], at)
	if !o.get {
		c.R.OK()
	}
}

func setNX(c *Client, a [][]byte) {
	it := c.db.Find(a[1])
	if it.Kind == store.None {
		c.db.Set(a[1], it, a[2], 0)
	}
	c.R.Flag(it.Kind == store.None)
}

func setEX(c *Client, a [][]byte) {
	unit, name := "EX", "setex"
	if len(a[0]) == len("psetex") {
		unit, name = "PX", "psetex"
	}
	if at, ok := c.at(unit, a[2], name); ok {
		c.db.Set(a[1], c.db.Find(a[1]), a[3], at)
		c.R.OK()
	}
}

func getSet(c *Client, a [][]byte) {
	if it, ok := c.find(a[1], store.String); ok {
		c.replyString(it)
		c.db.Set(a[1], it, a[2], 0)
	}
}

func getDel(c *Client, a [][]byte) {
	if it, ok := c.find(a[1], store.String); ok {
		c.replyString(it)
		c.db.Delete(a[1], it)
	}
}

func getEX(c *Client, a [][]byte) {
	var o setOptions
	if !o.parse(a[2:], true) {
		c.R.Error(errSyntax)
		return
	}
	it, ok := c.find(a[1], store.String)
	if !ok {
		return
	}
	if it.Kind == store.None {
		c.R.Null()
		return
	}
	var at int64
	if o.unit != "" {
		if at, ok = c.at(o.unit, o.time, "getex"); !ok {
			return
		}
	}
	c.replyString(it)
	switch {
	case o.persist && it.At != 0:
		c.db.SetExpiry(a[1], it, 0)
	case at != 0 && at <= c.db.Now:
		c.db.Delete(a[1], it)
	case at != 0:
		c.db.SetExpiry(a[1], it, at)
	}
}

func mGet(c *Client, a [][]byte) {
	c.R.Array(len(a) - 1)
	for _, name := range a[1:] {
		it := c.db.Find(name)
		if it.Kind != store.String {
			it = store.Item{}
		}
		c.replyString(it)
	}
}

// last returns, of pairs of names and values, the last one of each name.
func lastOf(pairs [][]byte) [][]byte {
	if len(pairs) == 2 {
		return pairs
	}
	where := make(map[string]int, len(pairs)/2)
	kept := make([][]byte, 0, len(pairs))
	for i := 0; i < len(pairs); i += 2 {
		if at, ok := where[string(pairs[i])]; ok {
			kept[at+1] = pairs[i+1]
			continue
		}
		where[string(pairs[i])] = len(kept)
		kept = append(kept, pairs[i], pairs[i+1])
	}
	return kept
}

func mSet(c *Client, a [][]byte) {
	if len(a)%2 == 0 {
		c.R.Error(wrongArgs("mset"))
		return
	}
	pairs := lastOf(a[1:])
	for i := 0; i < len(pairs); i += 2 {
		c.db.Set(pairs[i], c.db.Find(pairs[i]), pairs[i+1], 0)
	}
	c.R.OK()
}

func mSetNX(c *Client, a [][]byte) {
	if len(a)%2 == 0 {
		c.R.Error(wrongArgs("msetnx"))
		return
	}
	pairs := lastOf(a[1:])
	for i := 0; i < len(pairs); i += 2 {
		if c.db.Find(pairs[i]).Kind != store.None {
			c.R.Int(0)
			return
		}
	}
	for i := 0; i < len(pairs); i += 2 {
		c.db.Set(pairs[i], store.Item{}, pairs[i+1], 0)
	}
	c.R.Int(1)
}
