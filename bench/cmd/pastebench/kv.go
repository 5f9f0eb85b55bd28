package main

import (
	"errors"
	"fmt"

	"github.com/pastenet/paste/bench/kv"
	"github.com/pastenet/paste/internal/bench"
	"github.com/pastenet/paste/internal/benchcli"
	"github.com/pastenet/paste/internal/bytesize"
	"github.com/spf13/cobra"
)

const pastectlUsage = "the pastectl to measure; the one beside this program, or in PATH, when empty"

func newKVCmd(s streams) *cobra.Command {
	cfg, load := bench.Config{}, kv.Config{}
	size, poolSize := bytesize.Size(1024), bytesize.Size(1<<30)
	out := benchcli.Output{Stdout: s.stdout, Progress: s.stderr}
	var pastectl string
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

and, if asked for, paste@PROGRAM: another build of pastectl.

Each store is filled with all keys first. Popular keys are spread over the key
space. "pastectl bench --help" says what is the same for everyone.`,
		Example: "  pastebench kv --put 50 --keys 100000",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if load.Keys < 1 || load.PutPercent < 0 || load.PutPercent > 100 || load.Theta < 0 || load.Theta >= 1 {
				return errors.Join(errUsage, errors.New("want --keys of 1 or more, --put from 0 to 100, --zipf from 0 to below 1"))
			}
			cfg.Size, cfg.PoolSize = int(size), int64(poolSize)
			if cfg.Exe, err = findPastectl(pastectl); err != nil {
				return err
			}
			return benchcli.Run(cfg, out, func(cfg bench.Config) (*bench.Report, error) {
				return kv.Run(cmd.Context(), cfg, load)
			})
		},
	}
	f := cmd.Flags()
	benchcli.AddFlags(f, &cfg, &out, kv.Names())
	f.Var(&size, "size", "length of a value")
	f.IntVar(&load.Keys, "keys", 100000, "number of keys")
	f.IntVar(&load.PutPercent, "put", 50, "percentage of requests that write")
	f.Float64Var(&load.Theta, "zipf", 0.99, "skew of the keys' popularity, from 0 (none) to below 1")
	f.Var(&poolSize, "pool-size", "size of PASTE's pool, on /dev/shm")
	f.StringVar(&pastectl, "pastectl", "", pastectlUsage)
	return cmd
}

// newKVServerCmd runs a contender in a process of its own.
func newKVServerCmd(s streams) *cobra.Command {
	return &cobra.Command{
		Use: kv.ServerCommand + " STORE ADDR DIR", Hidden: true, DisableFlagParsing: true,
		Short: fmt.Sprintf("Run %s, %s, %s or %s as a contender", kv.Bbolt, kv.Pebble, kv.BboltHTTP, kv.PebbleHTTP),
		RunE: func(cmd *cobra.Command, args []string) error {
			return kv.Serve(cmd.Context(), args, s.stdout)
		},
	}
}
