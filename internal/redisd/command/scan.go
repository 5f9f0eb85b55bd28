package command

import (
	"bytes"
	"strconv"

	"github.com/pastenet/paste/internal/redisd/resp"
	"github.com/pastenet/paste/internal/redisd/store"
)

func isInt(b []byte) bool {
	_, ok := resp.ParseInt(b)
	return ok
}

// scanOptions are those of SCAN and HSCAN.
type scanOptions struct {
	match []byte
	count int
	kind  []byte
}

func (c *Client) scanOptions(a [][]byte, kinds bool) (o scanOptions, ok bool) {
	o.count = 10
	for i := 0; i < len(a); i += 2 {
		more := i+1 < len(a)
		switch {
		case is(a[i], "COUNT") && more:
			n, ok := c.int(a[i+1])
			if !ok {
				return o, false
			}
			if n < 1 {
				c.R.Error(errSyntax)
				return o, false
			}
			o.count = int(min(n, 1<<30))
		case is(a[i], "MATCH") && more:
			o.match = a[i+1]
		case kinds && is(a[i], "TYPE") && more:
			o.kind = a[i+1]
		default:
			c.R.Error(errSyntax)
			return o, false
		}
	}
	return o, true
}

// place reads a cursor.
func (c *Client) place(b []byte) (from []byte, ok bool) {
	n, ok := resp.ParseUint(b)
	if ok {
		from, ok = c.db.Place(n)
	}
	if !ok {
		c.R.Error("ERR invalid cursor")
	}
	return from, ok
}

// replyScan begins the answer to a scan that goes on at next.
func (c *Client) replyScan(next []byte) {
	c.R.Array(2)
	if next == nil {
		c.R.Text("0")
		return
	}
	c.R.Text(strconv.FormatUint(c.db.Cursor(next), 10))
}

func scan(c *Client, a [][]byte) {
	from, ok := c.place(a[1])
	if !ok {
		return
	}
	o, ok := c.scanOptions(a[2:], true)
	if !ok {
		return
	}
	var list [][]byte
	next := c.db.Scan(from, o.count, func(name []byte, it store.Item) {
		if o.kind != nil && !bytes.EqualFold(o.kind, []byte(it.Kind.String())) {
			return
		}
		if o.match == nil || Match(o.match, name) {
			list = append(list, name)
		}
	})
	c.replyScan(next)
	c.R.Array(len(list))
	for _, name := range list {
		c.R.Bulk(name)
	}
}

func keys(c *Client, a [][]byte) {
	at, n := c.R.Later(), 0
	c.db.Scan(nil, 0, func(name []byte, _ store.Item) {
		if Match(a[1], name) {
			c.R.Bulk(name)
			n++
		}
	})
	c.R.SetLater(at, '*', n)
}
