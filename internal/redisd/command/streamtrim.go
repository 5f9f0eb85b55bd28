package command

import (
	"math"

	"github.com/pastenet/paste/internal/redisd/store"
)

// trim is what XADD and XTRIM say of old entries.
type trim struct {
	given, byID, approx bool
	keep                uint64
	min                 store.ID
	limit               int
	noStream            bool
}

// node is how many entries Redis keeps together: "~" removes whole nodes.
const node = 100

// parseTrim reads the options in front of an ID (of XADD), or all (of XTRIM). n is
// how many arguments they are.
func (c *Client) parseTrim(a [][]byte, add bool) (t trim, n int, ok bool) {
	limited := false
	i := 0
	for ; i < len(a); i++ {
		more := len(a) - i - 1
		switch {
		case add && len(a[i]) == 1 && a[i][0] == '*':
			return c.checkTrim(t, i, limited)
		case (is(a[i], "MAXLEN") || is(a[i], "MINID")) && more > 0:
			if t.given {
				c.R.Error("ERR syntax error, MAXLEN and MINID options at the same time are not compatible")
				return t, 0, false
			}
			t.given, t.byID, t.approx = true, is(a[i], "MINID"), false
			if w := a[i+1]; more >= 2 && len(w) == 1 && (w[0] == '~' || w[0] == '=') {
				t.approx = w[0] == '~'
				i++
			}
			if ok := c.threshold(&t, a[i+1]); !ok {
				return t, 0, false
			}
			i++
		case is(a[i], "LIMIT") && more > 0:
			k, ok := c.int(a[i+1])
			if !ok {
				return t, 0, false
			}
			if k < 0 {
				c.R.Error("ERR The LIMIT argument must be >= 0.")
				return t, 0, false
			}
			t.limit, limited = int(min(k, math.MaxInt32)), true
			i++
		case add && is(a[i], "NOMKSTREAM"):
			t.noStream = true
		case add:
			return c.checkTrim(t, i, limited)
		default:
			c.R.Error(errSyntax)
			return t, 0, false
		}
	}
	return c.checkTrim(t, i, limited)
}

func (c *Client) threshold(t *trim, b []byte) (ok bool) {
	if t.byID {
		t.min, ok = c.streamID(b, 0)
		return ok
	}
	k, ok := c.int(b)
	if ok && k < 0 {
		c.R.Error("ERR The MAXLEN argument must be >= 0.")
		return false
	}
	t.keep = uint64(k)
	return ok
}

func (c *Client) checkTrim(t trim, n int, limited bool) (trim, int, bool) {
	if limited && !t.approx {
		c.R.Error("ERR syntax error, LIMIT cannot be used without the special ~ option")
		return t, 0, false
	}
	if t.approx && !limited {
		t.limit = 100 * node
	}
	return t, n, true
}

// do trims, and returns how many entries went.
func (t *trim) do(db *store.DB, s *store.StreamRef, added uint64) int {
	if !t.given {
		return 0
	}
	if t.approx {
		// What is not worth the work stays, as with Redis.
		if t.byID || s.Length < t.keep+node {
			if !t.byID {
				return 0
			}
		}
		return db.Trim(s, t.keep+(s.Length-t.keep)%node, t.min, t.byID, 0, t.limit)
	}
	return db.Trim(s, t.keep, t.min, t.byID, added, 0)
}

func xTrim(c *Client, a [][]byte) {
	t, _, ok := c.parseTrim(a[2:], false)
	if !ok {
		return
	}
	if !t.given {
		c.R.Error("ERR syntax error, XTRIM must be called with MAXLEN or MINID options")
		return
	}
	s, _, ok := c.stream(a[1])
	if !ok {
		return
	}
	n := t.do(c.db, s, 0)
	if n > 0 {
		c.db.StreamDone(s)
	}
	c.R.Int(int64(n))
}
