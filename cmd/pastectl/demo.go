package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/pastenet/paste/internal/benchcli"
	"github.com/pastenet/paste/internal/demo"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func newDemoCmd(e env) *cobra.Command {
	var cfg demo.Config
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show everything on a veth pair, with nothing to prepare",
		Long: `Show what PASTE does, in less than a minute and with nothing to prepare but root
and curl: two network namespaces joined by a veth pair, a pool file in memory,
a server on it; curl as its client; then a load of writes in the middle of which
the server is killed (kill -9) and started again, and the search for every write
that was acknowledged. Payload is steered there: the NIC puts it into the pool. Then the
same where the server chooses how to receive, and at last a quick comparison of both
with a server on ordinary sockets.

Everything is removed at the end, also after Ctrl-C. What a kill -9 of the
demonstration itself leaves is removed by the next one.`,
		Example: `  pastectl demo
  pastectl demo --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := e.stdout
			if asJSON {
				out = e.stderr // standard output is for the machine
			}
			cfg.Out, cfg.Live = out, liveLine(out)
			p := benchcli.NewProgress(out)
			cfg.Bench = p.Update
			sum, err := demo.Run(cmd.Context(), cfg)
			p.Close()
			if errors.Is(err, context.Canceled) {
				return errors.New("demo: interrupted; everything is cleaned up")
			}
			if sum == nil {
				return err
			}
			if asJSON {
				return errors.Join(e.printJSON(sum), err)
			}
			return errors.Join(err, writeSummary(e.stdout, sum))
		},
	}
	f := cmd.Flags()
	f.IntVar(&cfg.Connections, "connections", 50, "connections of the load that is interrupted")
	f.DurationVar(&cfg.LoadTime, "load-time", 2*time.Second, "how long the server is loaded before the kill, and after it")
	f.DurationVar(&cfg.BenchTime, "bench-time", 1500*time.Millisecond, "how long each server is measured, in each of two rounds")
	f.BoolVar(&asJSON, "json", false, "print the summary as JSON, and everything else on standard error")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if cfg.Connections < 1 || cfg.Connections > 10000 || cfg.LoadTime <= 0 || cfg.BenchTime < 100*time.Millisecond {
			return newUsageError(cmd, errors.New("--connections must be 1 to 10000, --load-time positive, --bench-time 100ms or more"))
		}
		return nil
	}
	return cmd
}

// liveLine shows a line that changes: in its place on a terminal, else below
// the one before, and not each of them.
func liveLine(out io.Writer) func(string) {
	if f, ok := out.(*os.File); ok {
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			shown := false
			return func(line string) {
				if line == "" {
					if shown {
						fmt.Fprintln(out)
					}
					shown = false
					return
				}
				shown = true
				fmt.Fprintf(out, "\r\x1b[K   %s", line)
			}
		}
	}
	n := 0
	return func(line string) {
		if line == "" {
			n = 0
		} else if n++; n%5 == 1 {
			fmt.Fprintf(out, "   %s\n", line)
		}
	}
}

func writeSummary(w io.Writer, s *demo.Summary) error {
	verdict := "all of them"
	if s.Found != s.Acknowledged {
		verdict = "NOT all of them"
	}
	fmt.Fprintf(w, "\n== Summary (%.0f s)\n", s.Seconds)
	fmt.Fprintf(w, "   acknowledged writes found again after kill -9   %d of %d: %s\n", s.Found, s.Acknowledged, verdict)
	fmt.Fprintf(w, "   from kill -9 until the next server was ready    %d ms\n", s.RestartMS)
	if total := s.InPlaceBytes + s.CopiedBytes; total > 0 {
		fmt.Fprintf(w, "   payload received in its packet buffer           %.2f %% when steered\n",
			100*float64(s.InPlaceBytes)/float64(total))
	}
	if t := s.Throughput; t != nil {
		fmt.Fprintf(w, "   writes per second, %d connections of %d bytes:\n", t.Connections, t.Size)
		fmt.Fprintf(w, "     pastectl serve http --receive steered         %.0f, %.2f of epoll's\n", t.Steered, t.SteeredRatio)
		fmt.Fprintf(w, "     pastectl serve http, as it comes              %.0f, %.2f\n", t.Paste, t.Ratio)
		fmt.Fprintf(w, "     epoll, copy to the log                        %.0f\n", t.Epoll)
	}
	_, err := fmt.Fprintln(w)
	return err
}
