package benchcli

import (
	"fmt"
	"io"

	"github.com/pastenet/paste/internal/bench"
	"github.com/pastenet/paste/internal/bytesize"
	"github.com/pastenet/paste/internal/contender"
	"github.com/pastenet/paste/internal/loadgen"
	"github.com/spf13/cobra"
)

// Setup is what a program has for the commands of NewCmd.
type Setup struct {
	// Name of the command above, for the example: "pastectl bench".
	Name             string
	Stdout, Progress io.Writer
	// Others are the contenders that only this program has.
	Others []contender.Kind
	// Pastectl finds the pastectl to measure; nil: this program is one.
	Pastectl func() (string, error)
	// Plot draws the matrix of a JSON file; nil: pastebench does that.
	Plot func(from, to string) error
}

// wireUsage explains the flag --wire.
const wireUsage = "no larger than the MTU, with real checksums, merged again by the receiver (GRO)"

var workloads = map[loadgen.Workload]struct {
	short, size string
	bytes       bytesize.Size
}{
	loadgen.RPC:  {"Requests without a body: GET, answered from memory", "body of a response", 64},
	loadgen.Echo: {"Messages that are sent back", "length of a message", 1024},
	loadgen.Sink: {"Streams that nobody answers, read and forgotten", "length of a write", 64 << 10},
	loadgen.WAL:  {"A write-ahead log: POST, answered when the body is durable", "body of a request", 1024},
}

// NewCmd is the command that measures servers under a workload of loadgen but KV.
func NewCmd(w loadgen.Workload, setup Setup) *cobra.Command {
	what := workloads[w]
	cfg := bench.Config{Workload: w, Others: bench.Others{Kinds: setup.Others}}
	size, poolSize := what.bytes, bytesize.Size(256<<20)
	out := Output{Stdout: setup.Stdout, Progress: setup.Progress}
	cmd := &cobra.Command{
		Use:   string(w),
		Short: what.short,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			cfg.Size, cfg.PoolSize = int(size), int64(poolSize)
			if setup.Pastectl != nil {
				if cfg.Exe, err = setup.Pastectl(); err != nil {
					return err
				}
			}
			return Run(cfg, out, func(cfg bench.Config) (*bench.Report, error) {
				return bench.Run(cmd.Context(), cfg)
			})
		},
	}
	names := bench.Names()
	for _, k := range setup.Others {
		names = append(names, string(k))
	}
	f := cmd.Flags()
	AddFlags(f, &cfg, &out, names)
	f.Var(&size, "size", what.size)
	f.BoolVar(&cfg.RPS, "rps", false, "receive by packet steering instead of threaded NAPI: XDP then runs on the client's CPU")
	f.BoolVar(&cfg.Wire, "wire", false, "frames as on a wire: "+wireUsage)
	f.BoolVar(&cfg.BusyPoll, "busy-poll", false, "servers and client poll without sleeping, for very few connections")
	if w != loadgen.RPC {
		f.Var(&poolSize, "pool-size", "size of a pool, on /dev/shm")
	}
	cmd.Example = fmt.Sprintf("  %s %s --connections 100 --size %d --contenders paste,epoll", setup.Name, w, int64(what.bytes))
	return cmd
}
