package command

import (
	"bytes"
	"math"

	"github.com/pastenet/paste/internal/redisd/resp"
	"github.com/pastenet/paste/internal/redisd/store"
)

func streamCommands() []Command {
	return []Command{
		{name: "xadd", do: xAdd, arity: -5, flags: write | denyOOM | fast, first: 1, last: 1, step: 1},
		{name: "xlen", do: xLen, arity: 2, flags: readonly | fast, first: 1, last: 1, step: 1},
		{name: "xrange", do: func(c *Client, a [][]byte) { c.xRange(a, false) }, arity: -4, flags: readonly, first: 1, last: 1, step: 1},
		{name: "xrevrange", do: func(c *Client, a [][]byte) { c.xRange(a, true) }, arity: -4, flags: readonly, first: 1, last: 1, step: 1},
		{name: "xdel", do: xDel, arity: -3, flags: write | fast, first: 1, last: 1, step: 1},
		{name: "xtrim", do: xTrim, arity: -4, flags: write, first: 1, last: 1, step: 1},
		{name: "xsetid", do: xSetID, arity: -3, flags: write | denyOOM | fast, first: 1, last: 1, step: 1},
		{name: "xread", do: xRead, arity: -4, flags: readonly | blocking},
		{name: "xinfo", do: xInfo, arity: -2, flags: readonly, first: 2, last: 2, step: 1},
	}
}

const errID = "ERR Invalid stream ID specified as stream command argument"

// parseID reads "ms-seq" or "ms"; missing is the number of the latter.
func parseID(b []byte, missing uint64) (id store.ID, ok bool) {
	ms, seq, both := bytes.Cut(b, []byte("-"))
	if id.MS, ok = resp.ParseUint(ms); !ok {
		return id, false
	}
	id.Seq = missing
	if both {
		id.Seq, ok = resp.ParseUint(seq)
	}
	return id, ok
}

// id reads an argument that is an ID.
func (c *Client) streamID(b []byte, missing uint64) (id store.ID, ok bool) {
	if id, ok = parseID(b, missing); !ok {
		c.R.Error(errID)
	}
	return id, ok
}

// bound reads the end of an interval.
func (c *Client) bound(b []byte, start bool) (id store.ID, ok bool) {
	missing, word := uint64(0), "start"
	if !start {
		missing, word = math.MaxUint64, "end"
	}
	switch {
	case len(b) == 1 && b[0] == '-':
		return store.MinID, true
	case len(b) == 1 && b[0] == '+':
		return store.MaxID, true
	case len(b) < 2 || b[0] != '(':
		return c.streamID(b, missing)
	}
	if id, ok = c.streamID(b[1:], missing); !ok {
		return id, false
	}
	if start {
		id, ok = id.Next()
	} else {
		id, ok = id.Prev()
	}
	if !ok {
		c.R.Error("ERR invalid " + word + " ID for the interval")
	}
	return id, ok
}

// stream looks a stream up, or prepares to make one.
func (c *Client) stream(name []byte) (s *store.StreamRef, there, ok bool) {
	it, ok := c.find(name, store.Stream)
	if !ok {
		return nil, false, false
	}
	return c.db.StreamAt(name, it), it.Kind != store.None, true
}

// replyID answers with an ID.
func (c *Client) replyID(id store.ID) {
	var b [41]byte
	c.R.Bulk(id.Append(b[:0]))
}

// replyEntry answers with an entry.
func (c *Client) replyEntry(id store.ID, fields []byte) {
	c.R.Array(2)
	c.replyID(id)
	c.R.Raw(fields)
}

func xAdd(c *Client, a [][]byte) {
	t, n, ok := c.parseTrim(a[2:], true)
	if !ok {
		return
	}
	at := 2 + n
	if len(a)-at < 3 || (len(a)-at)%2 == 0 {
		c.R.Error(wrongArgs("xadd"))
		return
	}
	auto, autoSeq := string(a[at]) == "*", false
	var id store.ID
	if !auto {
		ms, cut := bytes.CutSuffix(a[at], []byte("-*"))
		if autoSeq = cut; cut {
			id.MS, ok = resp.ParseUint(ms)
			if !ok {
				c.R.Error(errID)
				return
			}
		} else if id, ok = c.streamID(a[at], 0); !ok {
			return
		}
		if !autoSeq && id == store.MinID {
			c.R.Error("ERR The ID specified in XADD must be greater than 0-0")
			return
		}
	}
	s, there, ok := c.stream(a[1])
	if !ok {
		return
	}
	if !there && t.noStream {
		c.R.Null()
		return
	}
	if s.Last == store.MaxID {
		c.R.Error("ERR The stream has exhausted the last possible ID, unable to add more items")
		return
	}
	if id, ok = nextID(s.Last, id, auto, autoSeq, uint64(c.db.Now)); !ok {
		c.R.Error("ERR The ID specified in XADD is equal or smaller than the target stream top item")
		return
	}
	r := resp.Reply{B: c.small[:0]}
	r.Array(len(a) - at - 1)
	for _, b := range a[at+1:] {
		r.Bulk(b)
	}
	c.small = r.B
	c.db.Add(s, id, c.small)
	t.do(c.db, s, 1)
	c.db.StreamDone(s)
	c.db.Signal(a[1])
	c.replyID(id)
	if cap(c.small) > 4096 {
		c.small = nil
	}
}

// nextID returns the ID of an entry behind last.
func nextID(last, id store.ID, auto, autoSeq bool, now uint64) (store.ID, bool) {
	switch {
	case auto && now > last.MS:
		return store.ID{MS: now}, true
	case auto:
		return last.Next()
	case autoSeq && id.MS == last.MS:
		next, ok := last.Next()
		return next, ok && next.MS == id.MS
	}
	return id, last.Less(id)
}

func xLen(c *Client, a [][]byte) {
	if s, _, ok := c.stream(a[1]); ok {
		c.R.Int(int64(s.Length))
	}
}

func (c *Client) xRange(a [][]byte, back bool) {
	from, to := a[2], a[3]
	if back {
		from, to = to, from
	}
	start, ok := c.bound(from, true)
	if !ok {
		return
	}
	end, ok := c.bound(to, false)
	if !ok {
		return
	}
	count := int64(-1)
	for i := 4; i < len(a); i += 2 {
		if !is(a[i], "COUNT") || i+1 == len(a) {
			c.R.Error(errSyntax)
			return
		}
		if count, ok = c.int(a[i+1]); !ok {
			return
		}
		count = max(count, 0)
	}
	s, there, ok := c.stream(a[1])
	switch {
	case !ok:
		return
	case !there:
		c.R.Array(0)
		return
	case count == 0:
		c.R.NullArray()
		return
	}
	at, n := c.R.Later(), 0
	c.db.Entries(s, start, end, back, func(id store.ID, fields []byte) bool {
		c.replyEntry(id, fields)
		n++
		return int64(n) != count
	})
	c.R.SetLater(at, '*', n)
}

func xDel(c *Client, a [][]byte) {
	var ids []store.ID
	for _, b := range once(a[2:]) {
		id, ok := c.streamID(b, 0)
		if !ok {
			return
		}
		ids = append(ids, id)
	}
	s, there, ok := c.stream(a[1])
	if !ok {
		return
	}
	n := 0
	seen := map[store.ID]bool{}
	for _, id := range ids {
		if !there || seen[id] || !c.db.Entry(s, id, func([]byte) {}) {
			continue
		}
		seen[id] = true
		c.db.RemoveEntry(s, id)
		if s.Deleted.Less(id) {
			s.Deleted = id
		}
		n++
	}
	if n > 0 {
		c.db.StreamDone(s)
	}
	c.R.Int(int64(n))
}

func xSetID(c *Client, a [][]byte) {
	id, ok := c.streamID(a[2], 0)
	if !ok {
		return
	}
	added, deleted := int64(-1), store.MinID
	for i := 3; i < len(a); i += 2 {
		switch {
		case is(a[i], "ENTRIESADDED") && i+1 < len(a):
			if added, ok = c.int(a[i+1]); !ok {
				return
			}
			if added < 0 {
				c.R.Error("ERR entries_added must be positive")
				return
			}
		case is(a[i], "MAXDELETEDID") && i+1 < len(a):
			if deleted, ok = c.streamID(a[i+1], 0); !ok {
				return
			}
			if id.Less(deleted) {
				c.R.Error("ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id")
				return
			}
		default:
			c.R.Error(errSyntax)
			return
		}
	}
	s, there, ok := c.stream(a[1])
	if !ok {
		return
	}
	if !there {
		c.R.Error(errNoKey)
		return
	}
	if last, ok := c.db.LastEntry(s); ok && id.Less(last) {
		c.R.Error("ERR The ID specified in XSETID is smaller than the target stream top item")
		return
	}
	if id.Less(s.Deleted) {
		c.R.Error("ERR The ID specified in XSETID is smaller than current max_deleted_entry_id")
		return
	}
	if added >= 0 && s.Length > uint64(added) {
		c.R.Error("ERR The entries_added specified in XSETID is smaller than the target stream length")
		return
	}
	s.Last = id
	if added >= 0 {
		s.Added = uint64(added)
	}
	if deleted != store.MinID {
		s.Deleted = deleted
	}
	c.db.StreamDone(s)
	c.R.OK()
}
