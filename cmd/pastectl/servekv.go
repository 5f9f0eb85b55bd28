package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/pastenet/paste/internal/kvd"
	"github.com/pastenet/paste/pmem/kv"
	"github.com/spf13/cobra"
)

func newServeKVCmd(e env) *cobra.Command {
	o := serveOptions{poolSize: 1 << 30, bodyLimit: 16 << 20}
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

A change is durable before it is answered. When the pool is full, PUT gets 507;
everything stored is still served, and DELETE makes room.

A value that is not what was stored gets 500, and the others are served. A pool
with a damaged record in its log, or a damaged node of its tree, is refused, as it
would have lost keys without a word. What describes the pool exists twice: one bad
copy is made anew, and two are refused. "pastectl pool check" says what is wrong
where.

The pool is created if there is none. The interface is attached for as long as
the server runs, unless "pastectl attach" did that. Without --nic, and for
clients that come in by another interface, everything works by copying.

Prints one line when it is ready, and one when SIGINT or SIGTERM ends it.`,
		Example: `  pastectl serve kv --nic eth0 --listen 10.0.0.1:8080 --pool /dev/shm/kv
  curl -T file http://10.0.0.1:8080/k/some%20key
  curl http://10.0.0.1:8080/k/some%20key`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd, e); err != nil {
				return err
			}
			if err := serveKV(cmd.Context(), e, &o, verify); err != nil {
				return fmt.Errorf("serve kv: %w", err)
			}
			return nil
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&verify, "verify", true, "compare values with their checksums before they are sent")
	return cmd
}

func serveKV(ctx context.Context, e env, o *serveOptions, verify bool) (err error) {
	pool, err := o.openPool()
	if err != nil {
		return err
	}
	started := false
	defer func() { err = errors.Join(err, closePool(pool, started)) }()
	store, err := kv.Open(pool, kv.Options{Verify: verify})
	if err != nil {
		return err
	}
	srv, err := kvd.New(o.cfg, store)
	if err != nil {
		return errors.Join(err, store.Close())
	}
	defer func() { err = errors.Join(err, srv.Close()) }()
	port, err := o.open(ctx, pool, srv, 2*int(o.bodyLimit))
	if err != nil {
		return errors.Join(err, store.Close())
	}
	// The store needs its pool, and no longer the port, for its last checkpoint.
	defer func() { err = errors.Join(err, port.Close(), store.Close()) }()

	url := "http://" + srv.Addr().String()
	status := port.Status()
	kvs := store.Stats()
	if o.json {
		err = json.NewEncoder(e.stdout).Encode(serveEvent{Event: "ready", URL: url, KV: &kvs, Port: &status})
	} else {
		_, err = fmt.Fprintf(e.stdout, "ready: %s nic=%s pool=%s (%s: %s) keys=%d replayed=%d\n",
			url, describeNIC(&status), status.Pool.Path, status.Pool.Backing, status.Pool.Durability, kvs.Keys, kvs.Replayed)
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}

	started = true
	err = srv.Run(ctx, ringsOf(port)...)
	status = port.Status()
	stats := srv.Stats()
	kvs = store.Stats()
	if o.json {
		return errors.Join(err, json.NewEncoder(e.stdout).Encode(serveEvent{Event: "stopped", URL: url, Port: &status, HTTP: &stats, KV: &kvs}))
	}
	fmt.Fprintf(e.stdout, "stopped: %d requests on %d connections; %d keys, %d puts, %d deletes, %d commits, %d checkpoints; %d payloads received in place, %d copied; %d system calls\n",
		stats.Requests, stats.Accepted, kvs.Keys, kvs.Puts, kvs.Deletes, kvs.Commits, kvs.Checkpoints,
		status.Stats.Delivered, status.Stats.Stray, status.Stats.Syscalls)
	return err
}
