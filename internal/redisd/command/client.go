package command

import (
	"strconv"
	"strings"
	"time"

	"github.com/pastenet/paste/internal/redisd/resp"
	"github.com/pastenet/paste/internal/redisd/store"
	"github.com/pastenet/paste/pmem"
)

// Client is one connection.
type Client struct {
	R resp.Reply // what is to be sent

	s    *Server
	db   *store.DB
	id   int64
	conn Conn

	peer, local string
	name        string
	lib, libVer string
	since       time.Time
	last        *Command
	authed      bool
	silent      silence

	multi     bool
	executing bool // its commands are being done
	aborted   bool // a command of the transaction was refused
	queue     [][][]byte
	watch     store.Watch

	small   []byte // a value that the command has made
	block   *blocked
	Closing bool // the connection ends behind the reply
}

// Conn is what a Client knows of its connection.
type Conn interface {
	// Wake says that the client's reply has grown, or that it is closing, while it
	// was not its turn.
	Wake()
	// Queued is how many bytes wait to be parsed, and to be sent.
	Queued() (in, out int)
}

// silence is what CLIENT REPLY has asked for.
type silence uint8

const (
	speaking silence = iota
	skipOne          // the next reply
	skipping         // this one
	off
)

// NewClient adds a connection.
func (s *Server) NewClient(conn Conn, peer, local string) *Client {
	s.lastID++
	c := &Client{s: s, db: s.DB, id: s.lastID, conn: conn, peer: peer, local: local, since: time.Now(), authed: s.Password == ""}
	s.clients[c.id] = c
	return c
}

// Gone ends what is known of a connection that is closed.
func (c *Client) Gone() {
	c.db.Unwatch(&c.watch)
	if c.block != nil {
		c.db.EndWait(&c.block.wait)
		c.block = nil
	}
	c.drop(0, 0)
	delete(c.s.clients, c.id)
}

// Authenticated reports whether the client may give commands.
func (c *Client) Authenticated() bool { return c.authed }

// Blocked reports whether the client waits for something: what it has sent behind
// is not looked at before. until is when it stops to wait, in milliseconds
// since 1970; 0 is never.
func (c *Client) Blocked() (until int64, is bool) {
	if c.block == nil {
		return 0, false
	}
	return c.block.until, true
}

// Do does one command. An error ends the server.
func (c *Client) Do(args [][]byte) error {
	if len(args) == 0 {
		return nil
	}
	c.s.Commands++
	b, refs := len(c.R.B), len(c.R.Refs)
	if c.silent == skipOne {
		c.silent = skipping
	}
	err := c.dispatch(args)
	switch c.silent {
	case skipping:
		c.silent = speaking
		c.drop(b, refs)
	case off:
		c.drop(b, refs)
	}
	return err
}

// drop takes back what the reply has got since.
func (c *Client) drop(b, refs int) {
	for _, r := range c.R.Refs[refs:] {
		c.db.Pool().Unref(r.Frag.Frame)
	}
	c.R.B, c.R.Refs = c.R.B[:b], c.R.Refs[:refs]
}

func (c *Client) dispatch(args [][]byte) error {
	cmd, problem := c.again(args)
	if problem != "" {
		if c.multi {
			c.aborted = true
		}
		if is(args[0], "EXEC") {
			c.leave()
			problem = "EXECABORT Transaction discarded because of: " + strings.TrimPrefix(problem, "ERR ")
		}
		c.R.Error(problem)
		return nil
	}
	c.last = cmd
	if !c.authed && !cmd.flags.has(noAuth) {
		if c.multi {
			c.aborted = true
		}
		c.R.Error(errNoAuth)
		return nil
	}
	if c.multi && !cmd.flags.has(inMulti) {
		if cmd.flags.has(noMulti) {
			c.aborted = true
			c.R.Error("ERR Command not allowed inside a transaction")
			return nil
		}
		c.enqueue(args)
		c.R.Status("QUEUED")
		return nil
	}
	if err := c.run(cmd, args); err != nil {
		return err
	}
	c.db.Wake()
	return nil
}

// run does a command, and applies what it changes.
func (c *Client) run(cmd *Command, args [][]byte) error {
	b, refs := len(c.R.B), len(c.R.Refs)
	cmd.calls++
	cmd.do(c, args)
	if c.db.Apply() {
		return nil
	}
	return c.failed(c.db.TakeErr(), b, refs)
}

// failed answers with an error, in place of what the reply has got since.
func (c *Client) failed(err error, b, refs int) error {
	text, fatal := textOf(err)
	if fatal {
		return err
	}
	c.drop(b, refs)
	c.R.Error(text)
	return nil
}

// frame puts a piece of a frame into the reply. Short ones are copied, as a piece
// costs more than its bytes.
func (c *Client) frame(f pmem.Fragment) {
	if f.Len < c.s.FrameFrom {
		c.R.Raw(c.db.Pool().Frame(f.Frame)[f.Off : int(f.Off)+int(f.Len)])
		return
	}
	c.db.Pool().Ref(f.Frame)
	c.R.Frame(f)
}

// find looks a name up, for a command that wants a kind; ok is false when the
// answer is an error.
func (c *Client) find(name []byte, kind store.Kind) (it store.Item, ok bool) {
	it = c.db.Find(name)
	if it.Kind != store.None && it.Kind != kind {
		c.R.Error(errType)
		return it, false
	}
	return it, true
}

// int reads an argument that is an integer.
func (c *Client) int(b []byte) (n int64, ok bool) {
	if n, ok = resp.ParseInt(b); !ok {
		c.R.Error(errInt)
	}
	return n, ok
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
