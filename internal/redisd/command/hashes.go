package command

import (
	"math/big"
	"strconv"

	"github.com/pastenet/paste/internal/redisd/resp"
	"github.com/pastenet/paste/internal/redisd/store"
)

func hashCommands() []Command {
	return []Command{
		{name: "hset", do: hSet, arity: -4, flags: write | denyOOM | fast, first: 1, last: 1, step: 1},
		{name: "hmset", do: hSet, arity: -4, flags: write | denyOOM | fast, first: 1, last: 1, step: 1},
		{name: "hsetnx", do: hSetNX, arity: 4, flags: write | denyOOM | fast, first: 1, last: 1, step: 1},
		{name: "hget", do: hGet, arity: 3, flags: readonly | fast, first: 1, last: 1, step: 1},
		{name: "hmget", do: hMGet, arity: -3, flags: readonly | fast, first: 1, last: 1, step: 1},
		{name: "hgetall", do: hGetAll, arity: 2, flags: readonly, first: 1, last: 1, step: 1},
		{name: "hkeys", do: hGetAll, arity: 2, flags: readonly, first: 1, last: 1, step: 1},
		{name: "hvals", do: hGetAll, arity: 2, flags: readonly, first: 1, last: 1, step: 1},
		{name: "hdel", do: hDel, arity: -3, flags: write | fast, first: 1, last: 1, step: 1},
		{name: "hexists", do: hExists, arity: 3, flags: readonly | fast, first: 1, last: 1, step: 1},
		{name: "hlen", do: hLen, arity: 2, flags: readonly | fast, first: 1, last: 1, step: 1},
		{name: "hstrlen", do: hStrLen, arity: 3, flags: readonly | fast, first: 1, last: 1, step: 1},
		{name: "hincrby", do: hIncrBy, arity: 4, flags: write | denyOOM | fast, first: 1, last: 1, step: 1},
		{name: "hincrbyfloat", do: hIncrByFloat, arity: 4, flags: write | denyOOM | fast, first: 1, last: 1, step: 1},
		{name: "hscan", do: hScan, arity: -3, flags: readonly, first: 1, last: 1, step: 1},
		{name: "hrandfield", do: hRandField, arity: -2, flags: readonly, first: 1, last: 1, step: 1},
	}
}

// hash looks a hash up, or prepares to make one.
func (c *Client) hash(name []byte) (*store.HashRef, bool) {
	it, ok := c.find(name, store.Hash)
	if !ok {
		return nil, false
	}
	return c.db.HashAt(name, it), true
}

func hSet(c *Client, a [][]byte) {
	if len(a)%2 != 0 {
		if len(a[0]) == len("hmset") {
			c.R.Error(wrongArgs("hmset"))
		} else {
			c.R.Error(wrongArgs("hset"))
		}
		return
	}
	h, ok := c.hash(a[1])
	if !ok {
		return
	}
	pairs := lastOf(a[2:])
	n := 0
	for i := 0; i < len(pairs); i += 2 {
		_, found := c.db.Field(h, pairs[i])
		if !found {
			n++
		}
		c.db.SetField(h, pairs[i], pairs[i+1], !found)
	}
	c.db.HashDone(h)
	if len(a[0]) == len("hmset") {
		c.R.OK()
		return
	}
	c.R.Int(int64(n))
}

func hSetNX(c *Client, a [][]byte) {
	h, ok := c.hash(a[1])
	if !ok {
		return
	}
	_, found := c.db.Field(h, a[2])
	if !found {
		c.db.SetField(h, a[2], a[3], true)
		c.db.HashDone(h)
	}
	c.R.Flag(!found)
}

func (c *Client) replyField(h *store.HashRef, field []byte) {
	if v, found := c.db.Field(h, field); found {
		c.R.Bulk(v)
	} else {
		c.R.Null()
	}
}

func hGet(c *Client, a [][]byte) {
	if h, ok := c.hash(a[1]); ok {
		c.replyField(h, a[2])
	}
}

func hMGet(c *Client, a [][]byte) {
	h, ok := c.hash(a[1])
	if !ok {
		return
	}
	c.R.Array(len(a) - 2)
	for _, field := range a[2:] {
		c.replyField(h, field)
	}
}

// hGetAll is HGETALL, HKEYS and HVALS.
func hGetAll(c *Client, a [][]byte) {
	h, ok := c.hash(a[1])
	if !ok {
		return
	}
	names, values := !is(a[0], "HVALS"), !is(a[0], "HKEYS")
	if names && values {
		c.R.Map(h.Len())
	} else {
		c.R.Array(h.Len())
	}
	c.db.Fields(h, nil, 0, func(field, value []byte) {
		if names {
			c.R.Bulk(field)
		}
		if values {
			c.R.Bulk(value)
		}
	})
}

func hDel(c *Client, a [][]byte) {
	h, ok := c.hash(a[1])
	if !ok {
		return
	}
	n := 0
	for _, field := range once(a[2:]) {
		if _, found := c.db.Field(h, field); found {
			c.db.RemoveField(h, field)
			n++
		}
	}
	if n > 0 {
		c.db.HashDone(h)
	}
	c.R.Int(int64(n))
}

func hExists(c *Client, a [][]byte) {
	if h, ok := c.hash(a[1]); ok {
		_, found := c.db.Field(h, a[2])
		c.R.Flag(found)
	}
}

func hLen(c *Client, a [][]byte) {
	if h, ok := c.hash(a[1]); ok {
		c.R.Int(int64(h.Len()))
	}
}

func hStrLen(c *Client, a [][]byte) {
	if h, ok := c.hash(a[1]); ok {
		v, _ := c.db.Field(h, a[2])
		c.R.Int(int64(len(v)))
	}
}

func hIncrBy(c *Client, a [][]byte) {
	by, ok := c.int(a[3])
	if !ok {
		return
	}
	h, ok := c.hash(a[1])
	if !ok {
		return
	}
	var n int64
	v, found := c.db.Field(h, a[2])
	if found {
		if n, ok = resp.ParseInt(v); !ok {
			c.R.Error("ERR hash value is not an integer")
			return
		}
	}
	if n, ok = sum(n, by); !ok {
		c.R.Error(errOverflow)
		return
	}
	c.db.SetField(h, a[2], strconv.AppendInt(nil, n, 10), !found)
	c.db.HashDone(h)
	c.R.Int(n)
}

func hIncrByFloat(c *Client, a [][]byte) {
	by, ok := longFloat(a[3])
	if !ok {
		c.R.Error(errFloat)
		return
	}
	if by.IsInf() {
		c.R.Error("ERR value is NaN or Infinity")
		return
	}
	h, ok := c.hash(a[1])
	if !ok {
		return
	}
	old := new(big.Float).SetPrec(mantissa)
	v, found := c.db.Field(h, a[2])
	if found {
		if old, ok = longFloat(v); !ok {
			c.R.Error("ERR hash value is not a float")
			return
		}
	}
	s, ok := addFloats(old, by)
	if !ok {
		c.R.Error(errNaN)
		return
	}
	c.db.SetField(h, a[2], []byte(s), !found)
	c.db.HashDone(h)
	c.R.Text(s)
}

func hScan(c *Client, a [][]byte) {
	from, ok := c.place(a[2])
	if !ok {
		return
	}
	o, ok := c.scanOptions(a[3:], false)
	if !ok {
		return
	}
	h, ok := c.hash(a[1])
	if !ok {
		return
	}
	var list [][]byte
	next := c.db.Fields(h, from, o.count, func(field, value []byte) {
		if o.match == nil || Match(o.match, field) {
			list = append(list, field, value)
		}
	})
	c.replyScan(next)
	c.R.Array(len(list))
	for _, b := range list {
		c.R.Bulk(b)
	}
}
