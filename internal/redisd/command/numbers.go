package command

import (
	"math"
	"math/big"
	"strconv"
	"strings"

	"github.com/pastenet/paste/internal/redisd/resp"
	"github.com/pastenet/paste/internal/redisd/store"
)

func numberCommands() []Command {
	return []Command{
		{name: "incr", do: func(c *Client, a [][]byte) { c.add(a[1], 1) }, arity: 2, flags: write | denyOOM | fast, first: 1, last: 1, step: 1},
		{name: "decr", do: func(c *Client, a [][]byte) { c.add(a[1], -1) }, arity: 2, flags: write | denyOOM | fast, first: 1, last: 1, step: 1},
		{name: "incrby", do: incrBy, arity: 3, flags: write | denyOOM | fast, first: 1, last: 1, step: 1},
		{name: "decrby", do: decrBy, arity: 3, flags: write | denyOOM | fast, first: 1, last: 1, step: 1},
		{name: "incrbyfloat", do: incrByFloat, arity: 3, flags: write | denyOOM | fast, first: 1, last: 1, step: 1},
	}
}

func incrBy(c *Client, a [][]byte) {
	if n, ok := c.int(a[2]); ok {
		c.add(a[1], n)
	}
}

func decrBy(c *Client, a [][]byte) {
	n, ok := c.int(a[2])
	switch {
	case !ok:
	case n == math.MinInt64:
		c.R.Error("ERR decrement would overflow")
	default:
		c.add(a[1], -n)
	}
}

// sum adds without overflow.
func sum(a, b int64) (_ int64, ok bool) {
	if b < 0 && a < math.MinInt64-b || b > 0 && a > math.MaxInt64-b {
		return 0, false
	}
	return a + b, true
}

// add adds to the number under a name.
func (c *Client) add(name []byte, by int64) {
	it, ok := c.find(name, store.String)
	if !ok {
		return
	}
	var n int64
	if it.Kind != store.None {
		if n, ok = c.int(it.Bytes()); !ok {
			return
		}
	}
	if n, ok = sum(n, by); !ok {
		c.R.Error(errOverflow)
		return
	}
	var b [20]byte
	c.db.Set(name, it, c.keep(strconv.AppendInt(b[:0], n, 10)), it.At)
	c.R.Int(n)
}

// keep copies a short value to where it stays until the command is done.
func (c *Client) keep(b []byte) []byte {
	c.small = append(c.small[:0], b...)
	return c.small
}

// Redis computes with the numbers of 80 bits that its CPUs have, whose mantissa has
// these many.
const mantissa = 64

// longFloat reads a number as Redis does for these commands.
func longFloat(b []byte) (*big.Float, bool) {
	if _, ok := resp.ParseFloat(b); !ok {
		return nil, false
	}
	f, _, err := big.ParseFloat(string(b), 10, mantissa, big.ToNearestEven)
	return f, err == nil
}

// addFloats returns the sum as Redis renders it; ok is false if it is none.
func addFloats(a, b *big.Float) (string, bool) {
	if a.IsInf() || b.IsInf() {
		return "", false
	}
	f := new(big.Float).SetPrec(mantissa).Add(a, b)
	s := f.Text('f', 17)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	if s == "-0" {
		s = "0"
	}
	return s, true
}

func incrByFloat(c *Client, a [][]byte) {
	it, ok := c.find(a[1], store.String)
	if !ok {
		return
	}
	old := new(big.Float).SetPrec(mantissa)
	if it.Kind != store.None {
		if old, ok = longFloat(it.Bytes()); !ok {
			c.R.Error(errFloat)
			return
		}
	}
	by, ok := longFloat(a[2])
	if !ok {
		c.R.Error(errFloat)
		return
	}
	s, ok := addFloats(old, by)
	if !ok {
		c.R.Error(errNaN)
		return
	}
	c.db.Set(a[1], it, []byte(s), it.At)
	c.R.Text(s)
}
