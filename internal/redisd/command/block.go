package command

import "github.com/pastenet/paste/internal/redisd/store"

// blocked is what a client waits for.
type blocked struct {
	wait  store.Wait
	until int64 // ms since 1970; 0: for ever
	// try answers if it can, and reports whether it did.
	try func(c *Client) bool
}

// waitFor makes a client wait until try can answer, for one of the names to get
// something, or for some time in milliseconds (0: for ever).
func (c *Client) waitFor(names [][]byte, ms int64, try func(c *Client) bool) {
	b := &blocked{try: try}
	if ms > 0 {
		b.until = c.db.Now + ms
	}
	b.wait.Ready = c.ready
	c.block = b
	c.db.Wait(&b.wait, names)
}

func (c *Client) unblock() {
	c.db.EndWait(&c.block.wait)
	c.block = nil
}

// ready is called when something has come.
func (c *Client) ready() {
	if c.block == nil {
		return
	}
	b, refs := len(c.R.B), len(c.R.Refs)
	done := c.block.try(c)
	if !c.db.Apply() {
		if err := c.failed(c.db.TakeErr(), b, refs); err != nil {
			c.db.Fail(err) // the next command will tell
			return
		}
		done = true
	}
	if done {
		c.unblock()
		c.conn.Wake()
	}
}

// TimedOut ends a client's waiting without what it has waited for.
func (c *Client) TimedOut() {
	if c.block == nil {
		return
	}
	c.unblock()
	c.R.NullArray()
}
