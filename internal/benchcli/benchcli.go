// Package benchcli is what the commands that measure have in common: their flags,
// how progress is shown, and how the report is printed.
package benchcli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pastenet/paste/internal/bench"
	"github.com/spf13/pflag"
)

// Output says where a command writes, and how.
type Output struct {
	Stdout   io.Writer // the report
	Progress io.Writer // a bar if it is a terminal, else a line per measurement
	JSON     bool      // the report is one JSON document
}

// AddFlags adds the flags of every benchmark of one workload.
func AddFlags(f *pflag.FlagSet, cfg *bench.Config, out *Output, contenders []string) {
	addCommonFlags(f, cfg, out, contenders)
	f.IntVar(&cfg.Connections, "connections", 100, "connections, each with one request outstanding")
	f.Float64Var(&cfg.Rate, "rate", 0, "requests per second that are offered at random times, latencies counted from then; 0: the next when one is answered")
}

func addCommonFlags(f *pflag.FlagSet, cfg *bench.Config, out *Output, contenders []string) {
	f.StringSliceVar(&cfg.Contenders, "contenders", contenders, "who takes part")
	addMeasureFlags(f, cfg, out)
}

func addMeasureFlags(f *pflag.FlagSet, cfg *bench.Config, out *Output) {
	f.IntVar(&cfg.ServerCPU, "server-cpu", 1, "CPU of the server")
	f.IntVar(&cfg.ClientCPU, "client-cpu", 0, "CPU of the client")
	f.BoolVar(&out.JSON, "json", false, "print JSON")
	f.DurationVar(&cfg.Duration, "duration", 500*time.Millisecond, "time measured for each contender in each round")
	f.DurationVar(&cfg.Warmup, "warmup", 100*time.Millisecond, "time before it that is not measured")
	f.IntVar(&cfg.Rounds, "rounds", 15, "interleaved rounds")
}

// Table is a report for people.
type Table interface{ WriteTable(w io.Writer) error }

// Run runs a benchmark with its progress shown, and prints the report.
func Run[R Table](cfg bench.Config, out Output, run func(bench.Config) (R, error)) error {
	report, err := measure(cfg, out, run)
	switch {
	case err != nil:
		return err
	case out.JSON:
		return out.writeJSON(report)
	}
	return report.WriteTable(out.Stdout)
}

// measure runs a benchmark with its progress shown.
func measure[R any](cfg bench.Config, out Output, run func(bench.Config) (R, error)) (R, error) {
	p := NewProgress(out.Progress)
	cfg.Progress = p.Update
	report, err := run(cfg)
	p.Close()
	if errors.Is(err, context.Canceled) {
		err = errors.New("bench: interrupted; everything is cleaned up")
	}
	return report, err
}

func (o *Output) writeJSON(v any) error {
	enc := json.NewEncoder(o.Stdout)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}
