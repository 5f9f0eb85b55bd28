package command

import (
	"crypto/rand"
	"encoding/hex"
	"time"

	"github.com/pastenet/paste/internal/redisd/resp"
	"github.com/pastenet/paste/internal/redisd/store"
)

// Version is the version of Redis whose commands these are, as clients ask for it.
const Version = "7.0.15"

// Server is what all connections have in common. All but its configuration is for
// whoever has the DB locked.
type Server struct {
	DB       *store.DB
	Password string
	Port     int
	Addr     string
	MaxConns int
	MaxBulk  int // bytes of an argument
	Verify   bool
	// FrameFrom is the length in bytes from which on pieces of values are sent from
	// where they lie.
	FrameFrom uint16
	// Shutdown ends the server.
	Shutdown func()

	Commands uint64 // done since the server began
	Accepted uint64
	Rejected uint64

	clients map[int64]*Client
	lastID  int64
	since   time.Time
	runID   string
}

// NewServer returns a server over a DB; its fields are to be set before the first
// client comes.
func NewServer(db *store.DB) *Server {
	var id [20]byte
	rand.Read(id[:]) // it never fails
	return &Server{DB: db, MaxBulk: resp.MaxBulk, FrameFrom: 2048, clients: map[int64]*Client{}, since: time.Now(), runID: hex.EncodeToString(id[:])}
}

// Clients is how many connections there are.
func (s *Server) Clients() int { return len(s.clients) }

func serverCommands() []Command {
	return []Command{
		{name: "ping", do: ping, arity: -1, flags: fast},
		{name: "echo", do: func(c *Client, a [][]byte) { c.R.Bulk(a[1]) }, arity: 2, flags: fast},
		{name: "hello", do: hello, arity: -1, flags: fast | noAuth},
		{name: "auth", do: auth, arity: -2, flags: fast | noAuth},
		{name: "quit", do: quit, arity: -1, flags: fast | noAuth | inMulti},
		{name: "reset", do: reset, arity: 1, flags: fast | noAuth | inMulti},
		{name: "select", do: selectDB, arity: 2, flags: fast},
		{name: "client", do: client, arity: -2, flags: admin},
		{name: "command", do: command, arity: -1},
		{name: "info", do: info, arity: -1},
		{name: "config", do: config, arity: -2, flags: admin},
		{name: "wait", do: wait, arity: 3},
		{name: "shutdown", do: shutdown, arity: -1, flags: admin | noMulti},
		{name: "time", do: timeNow, arity: 1, flags: fast},
		{name: "lastsave", do: func(c *Client, _ [][]byte) { c.R.Int(c.db.Now / 1000) }, arity: 1, flags: fast},
		{name: "save", do: func(c *Client, _ [][]byte) { c.R.OK() }, arity: 1, flags: admin | noMulti},
		{name: "bgsave", do: func(c *Client, _ [][]byte) { c.R.Status("Background saving started") }, arity: -1, flags: admin},
		{name: "memory", do: memory, arity: -2, flags: readonly},
		{name: "role", do: role, arity: 1, flags: fast},
		{name: "debug", do: debug, arity: -2, flags: admin},
		{name: "slowlog", do: slowLog, arity: -2, flags: admin},
	}
}

func ping(c *Client, a [][]byte) {
	switch len(a) {
	case 1:
		c.R.Status("PONG")
	case 2:
		c.R.Bulk(a[1])
	default:
		c.R.Error(wrongArgs("ping"))
	}
}

func quit(c *Client, _ [][]byte) {
	c.R.OK()
	c.Closing = true
}

func reset(c *Client, _ [][]byte) {
	c.leave()
	c.R.V3, c.name, c.silent = false, "", speaking
	c.authed = c.s.Password == ""
	c.R.Status("RESET")
}

func selectDB(c *Client, a [][]byte) {
	switch n, ok := resp.ParseInt(a[1]); {
	case !ok:
		c.R.Error(errInt)
	case n != 0:
		c.R.Error("ERR DB index is out of range")
	default:
		c.R.OK()
	}
}

// wait answers at once: there are no replicas, and what was answered is durable.
func wait(c *Client, a [][]byte) {
	if _, ok := c.int(a[1]); !ok {
		return
	}
	switch n, ok := resp.ParseInt(a[2]); {
	case !ok:
		c.R.Error("ERR timeout is not an integer or out of range")
	case n < 0:
		c.R.Error("ERR timeout is negative")
	default:
		c.R.Int(0)
	}
}

func shutdown(c *Client, a [][]byte) {
	abort := false
	for _, w := range a[1:] {
		switch {
		case is(w, "ABORT"):
			abort = true
		case is(w, "NOSAVE"), is(w, "SAVE"), is(w, "NOW"), is(w, "FORCE"):
		default:
			c.R.Error(errSyntax)
			return
		}
	}
	switch {
	case abort && len(a) > 2:
		c.R.Error(errSyntax)
	case abort:
		c.R.Error("ERR No shutdown in progress.")
	case c.s.Shutdown == nil:
		c.R.Error("ERR Errors trying to SHUTDOWN. Check logs.")
	default:
		c.Closing = true
		c.s.Shutdown()
	}
}

func timeNow(c *Client, _ [][]byte) {
	now := time.Now()
	c.R.Array(2)
	c.R.Text(itoa(now.Unix()))
	c.R.Text(itoa(int64(now.Nanosecond() / 1000)))
}

func role(c *Client, _ [][]byte) {
	c.R.Array(3)
	c.R.Text("master")
	c.R.Int(0)
	c.R.Array(0)
}

func debug(c *Client, _ [][]byte) {
	c.R.Error(`ERR DEBUG command not allowed. If the enable-debug-command option is set to "local", you can run it from a local connection, otherwise you need to set this option in the configuration file, and then restart the server.`)
}

func slowLog(c *Client, a [][]byte) {
	c.sub(a, []subCommand{
		{"GET", -2, func(c *Client, _ [][]byte) { c.R.Array(0) }},
		{"LEN", 2, func(c *Client, _ [][]byte) { c.R.Int(0) }},
		{"RESET", 2, func(c *Client, _ [][]byte) { c.R.OK() }},
	})
}

func memory(c *Client, a [][]byte) {
	c.sub(a, []subCommand{
		{"USAGE", -3, func(c *Client, a [][]byte) {
			if len(a) != 3 && !(len(a) == 5 && is(a[3], "SAMPLES")) {
				c.R.Error(errSyntax)
				return
			}
			it := c.db.Find(a[2])
			if it.Kind == store.None {
				c.R.Null()
				return
			}
			c.R.Int(c.db.Usage(a[2], it))
		}},
	})
}

// help answers with a command's sub-commands.
func (c *Client) help(name string, lines ...string) {
	c.R.Array(len(lines) + 3)
	c.R.Status(name + " <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")
	for _, l := range lines {
		c.R.Status(l)
	}
	c.R.Status("HELP")
	c.R.Status("    Print this help.")
}
