// Package kv measures PASTE's key-value server side by side with others
// that make every write durable before they answer it:
//
//   - paste: pastectl serve kv --nic; paste-copy: the same without --nic.
//   - redis: redis-server with appendonly and appendfsync always, over its own
//     protocol. Rewriting of the file is switched off, which spares it a fork
//     and a second writer during the measurement.
//   - bbolt, pebble: the server that a careful Go programmer writes over an
//     embedded store: one epoll thread that stages the writes of a batch of
//     events, commits them with sync in one transaction, and only then answers.
//   - bbolt-http, pebble-http: the server that most people write: package
//     net/http, with DB.Batch of bbolt or a synced Set of pebble in each handler.
//
// All data is on the same tmpfs. What else is the same for everyone: see package
// bench.
package kv

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/pastenet/paste/internal/bench"
	"github.com/pastenet/paste/internal/loadgen"
)

// The contenders besides bench.Paste.
const (
	Redis  = "redis"
	Bbolt  = "bbolt"
	Pebble = "pebble"

	BboltHTTP  = "bbolt-http"
	PebbleHTTP = "pebble-http"
)

// Names lists the contenders.
func Names() []string {
	return []string{bench.Paste, bench.PasteCopy, Redis, Bbolt, Pebble, BboltHTTP, PebbleHTTP}
}

// ServerCommand is the command of this program that runs Serve, in a process for
// each contender that is not a program of its own.
const ServerCommand = "kvserver"

// Config of the workload; the rest is bench.Config's.
type Config struct {
	Keys       int
	PutPercent int
	Theta      float64
}

// ErrNoRedis says that there is no redis-server here.
var ErrNoRedis = errors.New("redis-server is not installed; install it, or leave it out of the contenders")

// Run runs the benchmark; cfg.Exe is a pastectl, cfg.Workload and Custom are
// filled in here.
func Run(ctx context.Context, cfg bench.Config, kv Config) (*bench.Report, error) {
	if slices.Contains(cfg.Contenders, Redis) {
		if _, err := exec.LookPath("redis-server"); err != nil {
			return nil, ErrNoRedis
		}
	}
	load := func(name string, round int, c *loadgen.Config) {
		c.Workload = loadgen.KV
		c.KV = loadgen.KVConfig{Keys: kv.Keys, PutPercent: kv.PutPercent, Theta: kv.Theta, RESP: name == Redis, Seed: uint64(round)}
	}
	cfg.Workload = loadgen.KV
	cfg.Custom = &bench.Custom{
		Names: Names(),
		Title: fmt.Sprintf("%d%% GET and %d%% PUT, %d keys, Zipf %g", 100-kv.PutPercent, kv.PutPercent, kv.Keys, kv.Theta),
		Load:  load,
		Command: func(name, exe string, addr netip.AddrPort, nic, dir string) []string {
			return command(&cfg, name, exe, addr, nic, dir)
		},
		Prepare: func(ctx context.Context, name string, addr netip.AddrPort) error {
			return cfg.Fill(ctx, addr, func(c *loadgen.Config) { load(name, 0, c) })
		},
	}
	return bench.Run(ctx, cfg)
}

func command(cfg *bench.Config, name, exe string, addr netip.AddrPort, nic, dir string) []string {
	switch name {
	case bench.Paste, bench.PasteCopy:
		args := []string{exe, "serve", "kv", "--listen", addr.String(),
			"--pool", filepath.Join(dir, "pool"), "--pool-size", strconv.FormatInt(cfg.PoolSize, 10), "--json"}
		if name == bench.Paste {
			args = append(args, "--nic", nic)
		}
		return args
	case Redis:
		return bench.AppendRedis("redis-server", false, addr, dir)
	}
	return []string{"/proc/self/exe", ServerCommand, name, addr.String(), dir}
}
