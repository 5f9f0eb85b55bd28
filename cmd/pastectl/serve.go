package main

import (
	"errors"
	"fmt"

	"github.com/pastenet/paste/internal/httpd"
	"github.com/pastenet/paste/internal/kvd"
	"github.com/pastenet/paste/internal/serve"
	"github.com/spf13/cobra"
)

// maxResponse bounds --response-bytes: the answer is rendered once for each way
// to say what becomes of the connection, and stays in memory.
const maxResponse = 64 << 20

func newServeCmd(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve from packet buffers",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newServeHTTPCmd(e), newServeKVCmd(e), newServeRedisCmd(e))
	return cmd
}

// serveCommon ends the help of all servers.
const serveCommon = `
The pool is created if there is none. The interface is attached for as long as
the server runs, unless "pastectl attach" did that. Without --nic, and for
clients that come in by another interface, everything works by copying.

Prints one line when it is ready, and one when it has ended. SIGINT, SIGTERM or
SIGHUP ends it: nobody is let in any more, and requests that have begun may be
finished within --drain-timeout. A second SIGINT or SIGTERM ends it at once.`

func newServeHTTPCmd(e env) *cobra.Command {
	o := newServeOptions(httpd.DefaultBodyLimit)
	cfg := &o.cfg.HTTP
	retain := new(retainOptions)
	cmd := &cobra.Command{
		Use:   "http",
		Short: "Serve HTTP/1.1: GET from memory, POST and PUT into the pool's log",
		Long: `Serve HTTP/1.1 over kernel TCP whose payload arrives in the buffers of a pool
file. The body of a POST or PUT becomes one record of the pool's log, where the
interface put it, before it is answered; the answer's X-Paste-Seq is the record's
number ("pastectl pool log"). GET /log/NUMBER is that record, GET
/log?from=NUMBER&max=N&wait=SECONDS&format=raw|ndjson|lengths a list, GET
/log/events server-sent events of what comes; /log/cursors/NAME is how far a reader
is, PUT, POST ?ack=NUMBER and DELETE change that. /log/status, /healthz and /readyz
say how the server is. Any other GET is answered with a body of --response-bytes.

A body that is posted again with the same Idempotency-Key is stored once.
` + serveCommon,
		Example: `  pastectl serve http --nic eth0 --listen 10.0.0.1:8080 --pool /dev/shm/log
  curl -T file http://10.0.0.1:8080/
  curl -N http://10.0.0.1:8080/log/events`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.ResponseBytes < 1 || cfg.ResponseBytes > maxResponse {
				return newUsageError(cmd, fmt.Errorf("--response-bytes must be 1 to %d", maxResponse))
			}
			if cfg.Persist == httpd.PersistNone && cmd.Flag("on-full").Changed {
				return newUsageError(cmd, errors.New("--persist none stores nothing, so there is nothing for --on-full to say"))
			}
			if err := retain.complete(cmd, cfg); err != nil {
				return newUsageError(cmd, err)
			}
			if err := o.complete(cmd, e); err != nil {
				return err
			}
			if err := serve.HTTP(cmd.Context(), o.cfg); err != nil {
				return withHint(fmt.Errorf("serve http: %w", err), o.cfg.Port.NIC)
			}
			return nil
		},
	}
	o.define(cmd)
	f := cmd.Flags()
	f.IntVar(&cfg.ResponseBytes, "response-bytes", httpd.DefaultResponseBytes, "length of the body that answers a GET")
	f.Var(choice[httpd.Persist]{&cfg.Persist, httpd.ParsePersist, "zero-copy|copy|none"}, "persist", "what becomes of a body")
	f.Var(choice[httpd.OnFull]{&cfg.OnFull, httpd.ParseOnFull, "refuse|wrap"}, "on-full", "when pool or log are full: refuse (507), or wrap (drop the older half of the log)")
	retain.define(cmd, cfg)
	return cmd
}

func newServeKVCmd(e env) *cobra.Command {
	o := newServeOptions(kvd.DefaultBodyLimit)
	verify := true
	cmd := &cobra.Command{
		Use:   "kv",
		Short: "Serve a key-value store over HTTP",
		Long: `Serve a key-value store over HTTP/1.1. Values are stored in the buffers of a
pool file where the interface put them, and sent from there.

  PUT    /k/{key}                     store the body: 201 created, 204 replaced
  GET    /k/{key}                     200 and the value, 404
  DELETE /k/{key}                     204, 404
  GET    /k?prefix=P&after=K&limit=N  keys in order, one per line, percent-encoded
  POST   /k                           a batch of changes, all or none: a line of JSON each

HEAD, Range, If-Match, If-None-Match and If-Range do what HTTP says; a value keeps
its Content-Type, and expires with ?ttl=SECONDS. docs/kv.md has all of it. A change is durable before it is answered. When the pool is full, PUT gets 507;
everything stored is still served, and DELETE makes room.

A value that is not what was stored gets 500, and the others are served. A pool
with a damaged record in its log, or a damaged node of its tree, is refused, as it
would have lost keys without a word. What describes the pool exists twice: one bad
copy is made anew, and two are refused. "pastectl pool check" says what is wrong
where.
` + serveCommon,
		Example: `  pastectl serve kv --nic eth0 --listen 10.0.0.1:8080 --pool /dev/shm/kv
  curl -T file http://10.0.0.1:8080/k/some%20key
  curl http://10.0.0.1:8080/k/some%20key`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.complete(cmd, e); err != nil {
				return err
			}
			if err := serve.KV(cmd.Context(), o.cfg, verify); err != nil {
				return withHint(fmt.Errorf("serve kv: %w", err), o.cfg.Port.NIC)
			}
			return nil
		},
	}
	o.define(cmd)
	cmd.Flags().BoolVar(&verify, "verify", true, "compare values with their checksums before they are sent")
	return cmd
}
