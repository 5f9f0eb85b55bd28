package main

import (
	"errors"
	"fmt"

	"github.com/pastenet/paste/internal/bench"
	"github.com/pastenet/paste/internal/benchkv"
	"github.com/spf13/cobra"
)

func newBenchKVCmd(e env) *cobra.Command {
	cfg := bench.Config{}
	kv := benchkv.Config{}
	bytes, poolSize := sizeFlag(1024), sizeFlag(1<<30)
	asJSON := false
	cmd := &cobra.Command{
		Use:   "kv",
		Short: "A key-value store: GET and PUT, answered when the value is durable",
		Long: `Measure "pastectl serve kv" side by side with other key-value stores that make a
write durable before they answer it, on the same tmpfs:

  paste       pastectl serve kv --nic
  paste-copy  the same without --nic
  redis       redis-server, appendonly yes, appendfsync always, by its own protocol
  bbolt       one epoll thread in Go over bbolt: one synced transaction per batch
  pebble      one epoll thread in Go over pebble: one synced batch per batch
  bbolt-http  net/http over bbolt: DB.Batch in each handler
  pebble-http net/http over pebble: a synced Set in each handler

Each store is filled with all keys first. Popular keys are spread over the key
space.`,
		Example: "  pastectl bench kv --put 50 --keys 100000",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if kv.Keys < 1 || kv.PutPercent < 0 || kv.PutPercent > 100 || kv.Theta < 0 || kv.Theta >= 1 {
				return newUsageError(cmd, errors.New("want --keys of 1 or more, --put from 0 to 100, --zipf from 0 to below 1"))
			}
			cfg.Size, cfg.PoolSize = int(bytes), int64(poolSize)
			return runBench(e, cfg, asJSON, func(cfg bench.Config) (*bench.Report, error) {
				return benchkv.Run(cmd.Context(), cfg, kv)
			})
		},
	}
	f := cmd.Flags()
	addBenchFlags(f, &cfg, benchkv.Names(), &asJSON)
	f.Var(&bytes, "size", "length of a value")
	f.IntVar(&kv.Keys, "keys", 100000, "number of keys")
	f.IntVar(&kv.PutPercent, "put", 50, "percentage of requests that write")
	f.Float64Var(&kv.Theta, "zipf", 0.99, "skew of the keys' popularity, from 0 (none) to below 1")
	f.Var(&poolSize, "pool-size", "size of PASTE's pool, on /dev/shm")
	return cmd
}

// newBenchKVServerCmd runs a contender of bench kv, in a process of its own.
func newBenchKVServerCmd(e env) *cobra.Command {
	return &cobra.Command{
		Use: "kvserver STORE ADDR DIR", Hidden: true, DisableFlagParsing: true,
		Short: fmt.Sprintf("Run %s or %s as a contender of the benchmark", benchkv.Bbolt, benchkv.Pebble),
		RunE: func(cmd *cobra.Command, args []string) error {
			return benchkv.Serve(cmd.Context(), args, e.stdout)
		},
	}
}
