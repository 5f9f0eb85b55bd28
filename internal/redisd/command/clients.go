package command

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pastenet/paste/internal/redisd/resp"
)

const errName = "ERR Client names cannot contain spaces, newlines or special characters."

func validName(b []byte) bool {
	for _, c := range b {
		if c < '!' || c > '~' {
			return false
		}
	}
	return true
}

func client(c *Client, a [][]byte) { c.sub(a, clientSubs) }

var clientSubs []subCommand

func init() {
	ok := func(c *Client, _ [][]byte) { c.R.OK() }
	clientSubs = []subCommand{
		{"ID", 2, func(c *Client, _ [][]byte) { c.R.Int(c.id) }},
		{"GETNAME", 2, clientGetName},
		{"SETNAME", 3, clientSetName},
		{"SETINFO", 4, clientSetInfo},
		{"LIST", -2, clientList},
		{"INFO", 2, func(c *Client, _ [][]byte) { c.R.Verbatim(c.describe() + "\n") }},
		{"KILL", -3, clientKill},
		{"REPLY", 3, clientReply},
		{"NO-EVICT", 3, onOff},
		{"NO-TOUCH", 3, onOff},
		{"GETREDIR", 2, func(c *Client, _ [][]byte) { c.R.Int(-1) }},
		{"UNBLOCK", -3, clientUnblock},
		{"UNPAUSE", 2, ok},
		{"HELP", 2, func(c *Client, _ [][]byte) {
			c.help("CLIENT", "GETNAME", "ID", "INFO", "KILL <option>", "LIST [options ...]", "NO-EVICT (ON|OFF)", "REPLY (ON|OFF|SKIP)", "SETINFO <option> <value>", "SETNAME <name>", "UNBLOCK <clientid> [TIMEOUT|ERROR]")
		}},
	}
}

func onOff(c *Client, a [][]byte) {
	if !is(a[2], "ON") && !is(a[2], "OFF") {
		c.R.Error(errSyntax)
		return
	}
	c.R.OK()
}

func clientGetName(c *Client, _ [][]byte) {
	if c.name == "" {
		c.R.Null()
		return
	}
	c.R.Text(c.name)
}

func clientSetName(c *Client, a [][]byte) {
	if !validName(a[2]) {
		c.R.Error(errName)
		return
	}
	c.name = string(a[2])
	c.R.OK()
}

func clientSetInfo(c *Client, a [][]byte) {
	if !validName(a[3]) {
		c.R.Error(fmt.Sprintf("ERR %s cannot contain spaces, newlines or special characters.", bytes.ToLower(a[2])))
		return
	}
	switch {
	case is(a[2], "LIB-NAME"):
		c.lib = string(a[3])
	case is(a[2], "LIB-VER"):
		c.libVer = string(a[3])
	default:
		c.R.Error(fmt.Sprintf("ERR Unrecognized option '%s'", a[2]))
		return
	}
	c.R.OK()
}

// describe is a client's line in CLIENT LIST.
func (c *Client) describe() string {
	flag, cmd, queued := "N", "NULL", -1
	switch {
	case c.multi:
		flag, queued = "x", len(c.queue)
	case c.block != nil:
		flag = "b"
	}
	if c.last != nil {
		cmd = c.last.name
	}
	in, out := c.conn.Queued()
	proto := 2
	if c.R.V3 {
		proto = 3
	}
	return fmt.Sprintf("id=%d addr=%s laddr=%s fd=-1 name=%s age=%d idle=0 flags=%s db=0 sub=0 psub=0 ssub=0 multi=%d qbuf=%d qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=%d oll=0 omem=0 tot-mem=0 events=r cmd=%s user=default redir=-1 resp=%d lib-name=%s lib-ver=%s",
		c.id, c.peer, c.local, c.name, int(time.Since(c.since).Seconds()), flag, queued, in, out, cmd, proto, c.lib, c.libVer)
}

// all are the clients in the order in which they came.
func (s *Server) all() (list []*Client) {
	for _, id := range slices.Sorted(maps.Keys(s.clients)) {
		list = append(list, s.clients[id])
	}
	return list
}

func clientList(c *Client, a [][]byte) {
	keep := func(*Client) bool { return true }
	switch {
	case len(a) == 2:
	case len(a) == 4 && is(a[2], "TYPE"):
		if !is(a[3], "NORMAL") && !is(a[3], "MASTER") && !is(a[3], "REPLICA") && !is(a[3], "PUBSUB") {
			c.R.Error(fmt.Sprintf("ERR Unknown client type '%s'", a[3]))
			return
		}
		if !is(a[3], "NORMAL") {
			keep = func(*Client) bool { return false }
		}
	case len(a) > 3 && is(a[2], "ID"):
		ids := map[int64]bool{}
		for _, b := range a[3:] {
			n, ok := resp.ParseInt(b)
			if !ok {
				c.R.Error("ERR Invalid client ID")
				return
			}
			ids[n] = true
		}
		keep = func(o *Client) bool { return ids[o.id] }
	default:
		c.R.Error(errSyntax)
		return
	}
	var b strings.Builder
	for _, o := range c.s.all() {
		if keep(o) {
			b.WriteString(o.describe() + "\n")
		}
	}
	c.R.Verbatim(b.String())
}

// kill ends the connection; one's own behind the reply.
func (c *Client) kill(o *Client) {
	o.Closing = true
	if o != c {
		o.conn.Wake()
	}
}

func clientKill(c *Client, a [][]byte) {
	if len(a) == 3 {
		for _, o := range c.s.all() {
			if o.peer == string(a[2]) {
				c.kill(o)
				c.R.OK()
				return
			}
		}
		c.R.Error("ERR No such client")
		return
	}
	if len(a)%2 != 0 {
		c.R.Error(errSyntax)
		return
	}
	skipMe := true
	var tests []func(*Client) bool
	for i := 2; i < len(a); i += 2 {
		v := string(a[i+1])
		switch {
		case is(a[i], "ID"):
			n, ok := resp.ParseInt(a[i+1])
			if !ok || n < 1 {
				c.R.Error("ERR client-id should be greater than 0")
				return
			}
			tests = append(tests, func(o *Client) bool { return o.id == n })
		case is(a[i], "ADDR"):
			tests = append(tests, func(o *Client) bool { return o.peer == v })
		case is(a[i], "LADDR"):
			tests = append(tests, func(o *Client) bool { return o.local == v })
		case is(a[i], "USER"):
			tests = append(tests, func(*Client) bool { return v == "default" })
		case is(a[i], "TYPE"):
			normal := is(a[i+1], "NORMAL")
			tests = append(tests, func(*Client) bool { return normal })
		case is(a[i], "SKIPME") && (is(a[i+1], "YES") || is(a[i+1], "NO")):
			skipMe = is(a[i+1], "YES")
		default:
			c.R.Error(errSyntax)
			return
		}
	}
	n := 0
	for _, o := range c.s.all() {
		if o == c && skipMe || slices.ContainsFunc(tests, func(f func(*Client) bool) bool { return !f(o) }) {
			continue
		}
		c.kill(o)
		n++
	}
	c.R.Int(int64(n))
}

func clientReply(c *Client, a [][]byte) {
	switch {
	case is(a[2], "ON"):
		c.silent = speaking
		c.R.OK()
	case is(a[2], "OFF"):
		c.silent = off
	case is(a[2], "SKIP"):
		if c.silent == speaking {
			c.silent = skipOne
		}
	default:
		c.R.Error(errSyntax)
	}
}

func clientUnblock(c *Client, a [][]byte) {
	n, ok := c.int(a[2])
	if !ok {
		return
	}
	fail := false
	if len(a) == 4 {
		if fail = is(a[3], "ERROR"); !fail && !is(a[3], "TIMEOUT") {
			c.R.Error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
			return
		}
	} else if len(a) > 4 {
		c.R.Error(errSyntax)
		return
	}
	o := c.s.clients[n]
	if o == nil || o.block == nil {
		c.R.Int(0)
		return
	}
	if fail {
		o.unblock()
		o.R.Error("UNBLOCKED client unblocked via CLIENT UNBLOCK")
	} else {
		o.TimedOut()
	}
	o.conn.Wake()
	c.R.Int(1)
}
