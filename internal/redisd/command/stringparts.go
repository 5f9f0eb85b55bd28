package command

import "github.com/pastenet/paste/internal/redisd/store"

func appendTo(c *Client, a [][]byte) {
	it, ok := c.find(a[1], store.String)
	if !ok {
		return
	}
	if it.Len()+len(a[2]) > c.s.MaxBulk {
		c.R.Error(errSize)
		return
	}
	b := append(it.AppendTo(make([]byte, 0, it.Len()+len(a[2]))), a[2]...)
	c.db.Set(a[1], it, b, it.At)
	c.R.Int(int64(len(b)))
}

func strLen(c *Client, a [][]byte) {
	if it, ok := c.find(a[1], store.String); ok {
		c.R.Int(int64(it.Len()))
	}
}

func getRange(c *Client, a [][]byte) {
	from, ok := c.int(a[2])
	if !ok {
		return
	}
	to, ok := c.int(a[3])
	if !ok {
		return
	}
	it, ok := c.find(a[1], store.String)
	if !ok {
		return
	}
	n := int64(it.Len())
	if from < 0 && to < 0 && from > to {
		c.R.Text("")
		return
	}
	if from < 0 {
		from = max(n+from, 0)
	}
	if to < 0 {
		to = max(n+to, 0)
	}
	to = min(to, n-1)
	if n == 0 || from > to {
		c.R.Text("")
		return
	}
	c.R.Bulk(it.Bytes()[from : to+1])
}

func setRange(c *Client, a [][]byte) {
	off, ok := c.int(a[2])
	if !ok {
		return
	}
	if off < 0 {
		c.R.Error(errOffset)
		return
	}
	it, ok := c.find(a[1], store.String)
	if !ok {
		return
	}
	n := int64(it.Len())
	if len(a[3]) == 0 {
		c.R.Int(n)
		return
	}
	if off > int64(c.s.MaxBulk) || off+int64(len(a[3])) > int64(c.s.MaxBulk) {
		c.R.Error(errSize)
		return
	}
	b := make([]byte, max(n, off+int64(len(a[3]))))
	it.AppendTo(b[:0])
	copy(b[off:], a[3])
	c.db.Set(a[1], it, b, it.At)
	c.R.Int(int64(len(b)))
}
