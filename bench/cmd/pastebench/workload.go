package main

import (
	"github.com/pastenet/paste/bench/gnetserver"
	"github.com/pastenet/paste/bench/plot"
	"github.com/pastenet/paste/internal/bench"
	"github.com/pastenet/paste/internal/benchcli"
	"github.com/pastenet/paste/internal/contender"
	"github.com/pastenet/paste/internal/loadgen"
	"github.com/spf13/cobra"
)

// newWorkloadCmd is a command of pastectl bench with more contenders.
func newWorkloadCmd(s streams, w loadgen.Workload) *cobra.Command {
	var pastectl string
	cmd := benchcli.NewCmd(w, setup(s, &pastectl))
	cmd.Args = noArgs
	cmd.Long = cmd.Short + `.

As "pastectl bench ` + string(w) + `", whose help says how it measures, with one contender more:

  gnet  one event loop of github.com/panjf2000/gnet`
	cmd.Flags().StringVar(&pastectl, "pastectl", "", pastectlUsage)
	return cmd
}

func newMatrixCmd(s streams) *cobra.Command {
	var pastectl string
	cmd := benchcli.NewMatrixCmd(setup(s, &pastectl))
	cmd.Args = noArgs
	cmd.Flags().StringVar(&pastectl, "pastectl", "", pastectlUsage)
	return cmd
}

// setup is what this program has more than pastectl. pastectl is read when a command
// runs.
func setup(s streams, pastectl *string) benchcli.Setup {
	return benchcli.Setup{
		Name: "pastebench", Stdout: s.stdout, Progress: s.stderr, Others: []contender.Kind{gnetserver.Kind}, Plot: plot.Matrix,
		Pastectl: func() (string, error) { return findPastectl(*pastectl) },
	}
}

// newServerCmd runs a contender in a process of its own.
func newServerCmd(s streams) *cobra.Command {
	parent := &cobra.Command{Use: "bench", Hidden: true, Short: "What this program starts itself for"}
	parent.AddCommand(&cobra.Command{
		Use: "server JSON", DisableFlagParsing: true,
		Short: "Run a contender of the benchmark",
		RunE: func(cmd *cobra.Command, args []string) error {
			return bench.Serve(cmd.Context(), args, s.stdout, bench.Server{Kind: gnetserver.Kind, Run: gnetserver.Run})
		},
	})
	return parent
}
