package command

import (
	"strings"
)

// setting is one that CONFIG GET tells.
type setting struct {
	name  string
	value func(s *Server) string
}

func fixed(v string) func(*Server) string { return func(*Server) string { return v } }

var settings = []setting{
	{"appendfsync", fixed("always")},
	{"appendonly", fixed("yes")},
	{"bind", func(s *Server) string { return s.Addr }},
	{"databases", fixed("1")},
	{"maxclients", func(s *Server) string { return itoa(int64(s.MaxConns)) }},
	{"maxmemory", func(s *Server) string { _, all := s.memoryUse(); return itoa(all) }},
	{"maxmemory-policy", fixed("noeviction")},
	{"port", func(s *Server) string { return itoa(int64(s.Port)) }},
	{"proto-max-bulk-len", func(s *Server) string { return itoa(int64(s.MaxBulk)) }},
	{"save", fixed("")},
	{"stream-node-max-entries", fixed("100")},
	{"timeout", fixed("0")},
}

func config(c *Client, a [][]byte) {
	c.sub(a, []subCommand{
		{"GET", -3, configGet},
		{"SET", -4, func(c *Client, a [][]byte) {
			c.R.Error("ERR CONFIG SET failed (possibly related to argument '" + string(a[2]) + "') - can't set immutable config")
		}},
		{"RESETSTAT", 2, func(c *Client, _ [][]byte) {
			c.s.Commands, c.s.Accepted, c.s.Rejected, c.db.Expired = 0, 0, 0, 0
			for _, cmd := range table {
				cmd.calls = 0
			}
			c.R.OK()
		}},
		{"REWRITE", 2, func(c *Client, _ [][]byte) { c.R.Error("ERR The server is running without a config file") }},
		{"HELP", 2, func(c *Client, _ [][]byte) { c.help("CONFIG", "GET <pattern>", "RESETSTAT") }},
	})
}

func configGet(c *Client, a [][]byte) {
	var found []setting
	for _, s := range settings {
		for _, pattern := range a[2:] {
			if Match([]byte(strings.ToLower(string(pattern))), []byte(s.name)) {
				found = append(found, s)
				break
			}
		}
	}
	c.R.Map(len(found))
	for _, s := range found {
		c.R.Text(s.name)
		c.R.Text(s.value(c.s))
	}
}
