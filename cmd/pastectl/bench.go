package main

import (
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
  paste       pastectl serve http --nic (rpc, wal); a server on a ring (echo, sink)
  paste-copy  the same without --nic: payload is copied out of the kernel's TCP
  epoll       one thread, raw system calls
  io_uring    one thread, multishot receive into provided buffers in the pool
  go-net      package net, a goroutine per connection

and, if asked for:
  paste-persist-copy  paste with --persist copy (wal)
  paste-no-spin       paste with --spin 0s: what of its CPU time is not spinning
  paste-steered       paste with --receive steered: AF_XDP also without zero-copy
  nginx               one process; a body is a file by PUT, not synced (rpc, wal)
  paste@PROGRAM       another build of pastectl`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newBenchWorkloadCmd(e, loadgen.RPC),
		newBenchWorkloadCmd(e, loadgen.WAL),
		newBenchWorkloadCmd(e, loadgen.Echo),
		newBenchWorkloadCmd(e, loadgen.Sink),
		newBenchMatrixCmd(e),
		newBenchStagesCmd(e),
		newBenchRedisCmd(e),
		newBenchUDPCmd(e),
		newBenchServerCmd(e),
	)
	return cmd
}

func newBenchWorkloadCmd(e env, w loadgen.Workload) *cobra.Command {
	cmd := benchcli.NewCmd(w, benchcli.Setup{Name: "pastectl bench", Stdout: e.stdout, Progress: e.stderr})
	cmd.Args = noArgs
	return cmd
}

func newBenchMatrixCmd(e env) *cobra.Command {
	cmd := benchcli.NewMatrixCmd(benchcli.Setup{Name: "pastectl bench", Stdout: e.stdout, Progress: e.stderr})
	cmd.Args = noArgs
	return cmd
}

func newBenchStagesCmd(e env) *cobra.Command {
	cmd := benchcli.NewStagesCmd(benchcli.Setup{Name: "pastectl bench", Stdout: e.stdout, Progress: e.stderr})
	cmd.Args = noArgs
	return cmd
}

func newBenchRedisCmd(e env) *cobra.Command {
	cmd := benchcli.NewRedisCmd(benchcli.Setup{Name: "pastectl bench", Stdout: e.stdout, Progress: e.stderr})
	cmd.Args = noArgs
	return cmd
}

func newBenchUDPCmd(e env) *cobra.Command {
	cmd := benchcli.NewUDPCmd(benchcli.Setup{Name: "pastectl bench", Stdout: e.stdout, Progress: e.stderr})
	cmd.Args = noArgs
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
