package benchcli

import (
	"fmt"
	"time"

	"github.com/pastenet/paste/internal/bench"
	"github.com/spf13/cobra"
)

// NewStagesCmd is the command that measures the stages of receiving.
func NewStagesCmd(setup Setup) *cobra.Command {
	cfg := bench.Config{}
	out := Output{Stdout: setup.Stdout, Progress: setup.Progress}
	cmd := &cobra.Command{
		Use:   "stages",
		Short: "What each stage of receiving costs, in nanoseconds per segment",
		Long: `Receive on a ring by each way in, over a veth pair, and print what each stage costs
for a segment on the server's core:

  driver        NAPI; for what is not steered also GRO, IP
  xdp           the steering program
  af_xdp        the copy into the frame, which a NIC with zero-copy does by DMA
  harvest       descriptors of frames, and free ones for the NIC
  parse+ticket  headers, the connection, a ticket, a place in the batch
  inject        the write to the TAP, up to TCP
  tagger        the programs that carry the ticket
  tcp           the kernel's TCP, with the ACKs that it sends
  verdict       the program that claims the ticket, or copies
  deliver       what TCP has accepted, into the order of its connection
  read          recv, where bytes are read from the socket
  emit          slots

The ring itself measures harvest, parse+ticket, deliver and emit, by the clock at their
borders; what the kernel does is sampled on the server's core, 4000 times a second, and
counts for the innermost stage (perf_event_open). Steered streams come over a pair that is
like a wire: each frame with its checksum, and none merged with the next.

At last it computes what the steered stages would allow on a NIC with zero-copy: that is no
measurement. "pastectl bench --help" says where everything runs.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return Run(cfg, out, func(cfg bench.Config) (*bench.StagesReport, error) { return bench.RunStages(cmd.Context(), cfg) })
		},
	}
	f := cmd.Flags()
	addMeasureFlags(f, &cfg, &out)
	f.Lookup("duration").DefValue, cfg.Duration = "1s", time.Second
	f.Lookup("rounds").DefValue, cfg.Rounds = "5", 5
	cmd.Example = fmt.Sprintf("  %[1]s stages\n  %[1]s stages --json", setup.Name)
	return cmd
}
