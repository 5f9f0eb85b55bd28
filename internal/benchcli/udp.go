package benchcli

import (
	"fmt"

	"github.com/pastenet/paste/internal/bench"
	"github.com/pastenet/paste/internal/bytesize"
	"github.com/pastenet/paste/internal/loadgen"
	"github.com/spf13/cobra"
)

// NewUDPCmd is the command that compares servers of datagrams.
func NewUDPCmd(setup Setup) *cobra.Command {
	cfg := bench.Config{}
	out := Output{Stdout: setup.Stdout, Progress: setup.Progress}
	size, poolSize, sink := bytesize.Size(64), bytesize.Size(256<<20), false
	cmd := &cobra.Command{
		Use:   "udp",
		Short: "Datagrams that are sent back, or counted, against recvmmsg and sendmmsg",
		Long: `Measure a UDP server on a ring side by side with servers on a socket:

  paste       a registered UDP socket on a ring, one thread
  paste-napi  the same, polling the NIC's queue for 100 µs before it sleeps (NAPIPoll)
  mmsg        one thread, recvmmsg and sendmmsg of up to 64 datagrams, buffers that stay
  mmsg-gro    the same with UDP_GRO and UDP_SEGMENT
  go-udp      package net, a datagram in a system call

Without --sink each client sends a datagram and waits until it comes back. With --sink
each sends 16 and waits until the server tells, once, how many have come in all; those
are counted. The clients are one thread on a raw port (package netmap), which needs less
of a CPU than any server, and the frames have real checksums. What is lost is sent again
after 20 ms, and shown as failed. "pastectl bench --help" says where everything runs.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Size, cfg.PoolSize, cfg.Workload = int(size), int64(poolSize), loadgen.Echo
			if sink {
				cfg.Workload = loadgen.Sink
			}
			return Run(cfg, out, func(cfg bench.Config) (*bench.Report, error) { return bench.RunUDP(cmd.Context(), cfg) })
		},
	}
	f := cmd.Flags()
	addCommonFlags(f, &cfg, &out, bench.UDPNames())
	f.IntVar(&cfg.Connections, "clients", 32, "clients, each with a port of its own")
	f.BoolVar(&sink, "sink", false, "count datagrams instead of sending them back")
	f.Var(&size, "size", "length of a datagram")
	f.Var(&poolSize, "pool-size", "size of PASTE's pool, on /dev/shm")
	cmd.Example = fmt.Sprintf("  %[1]s udp\n  %[1]s udp --sink --size 1KiB --clients 32", setup.Name)
	return cmd
}
