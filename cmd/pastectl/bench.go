package main

import (
	"fmt"

	"github.com/pastenet/paste/internal/bench"
	"github.com/pastenet/paste/internal/benchcli"
	"github.com/pastenet/paste/internal/loadgen"
	"github.com/spf13/cobra"
)

func newBenchCmd(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure PASTE against ordinary socket servers on this machine",
		Long: `Measure PASTE against ordinary socket servers, side by side on this machine.

Gives every server a veth pair with two network namespaces, and runs all of them
on one CPU, with the receive processing of their ends of the pairs on the same
CPU. The client is on another CPU and puts its load on one server after the other;
the others sleep. Every contender gets the same load, the same congestion control,
the same kind of memory for its log and the same flush instruction. Rounds are
interleaved; rates are medians over them, ratios medians of the ratios within
each round. Many short rounds stand a noisy machine better than a few long ones.

The contenders:
  paste       pastectl serve http --nic
  paste-copy  the same without --nic: payload is copied out of the kernel's TCP
  epoll       one thread, raw system calls
  io_uring    one thread, multishot receive into provided buffers in the pool
  go-net      package net, a goroutine per connection

and, if asked for:
  paste-persist-copy  paste with --persist copy (wal)
  paste@PROGRAM       another build of pastectl`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newBenchWorkloadCmd(e, loadgen.RPC, "Requests without a body: GET, answered from memory", 64),
		newBenchWorkloadCmd(e, loadgen.WAL, "A write-ahead log: POST, answered when the body is durable", 1024),
	)
	cmd.AddCommand(newBenchServerCmd(e))
	return cmd
}

func newBenchWorkloadCmd(e env, w loadgen.Workload, short string, size int64) *cobra.Command {
	cfg := bench.Config{Workload: w}
	bytes, poolSize := sizeFlag(size), sizeFlag(256<<20)
	var out benchcli.Output
	cmd := &cobra.Command{
		Use:     string(w),
		Short:   short,
		Example: fmt.Sprintf("  pastectl bench %s --connections 100 --size %d --contenders paste,epoll", w, size),
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Size, cfg.PoolSize = int(bytes), int64(poolSize)
			out.Stdout, out.Progress = e.stdout, e.stderr
			return benchcli.Run(cfg, out, func(cfg bench.Config) (*bench.Report, error) {
				return bench.Run(cmd.Context(), cfg)
			})
		},
	}
	f := cmd.Flags()
	benchcli.AddFlags(f, &cfg, &out, bench.Names())
	what := "body of a request"
	if w == loadgen.RPC {
		what = "body of a response"
	}
	f.Var(&bytes, "size", what)
	f.BoolVar(&cfg.RPS, "rps", false, "receive by packet steering instead of threaded NAPI: XDP then runs on the client's CPU")
	f.BoolVar(&cfg.BusyPoll, "busy-poll", false, "servers and client poll without sleeping, for very few connections")
	if w == loadgen.WAL {
		f.Var(&poolSize, "pool-size", "size of each server's pool, on /dev/shm")
	}
	return cmd
}

// newBenchServerCmd runs a contender, in a process of its own.
func newBenchServerCmd(e env) *cobra.Command {
	return &cobra.Command{
		Use: "server JSON", Hidden: true, DisableFlagParsing: true,
		Short: "Run a contender of the benchmark",
		RunE: func(cmd *cobra.Command, args []string) error {
			return bench.Serve(cmd.Context(), args, e.stdout)
		},
	}
}
