package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/pastenet/paste/internal/bench"
	"github.com/pastenet/paste/internal/loadgen"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sys/unix"
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
	cmd.AddCommand(newBenchKVCmd(e), newBenchKVServerCmd(e))
	cmd.AddCommand(newBenchHelperCmds(e)...)
	return cmd
}

func newBenchWorkloadCmd(e env, w loadgen.Workload, short string, size int64) *cobra.Command {
	cfg := bench.Config{Workload: w}
	bytes, poolSize := sizeFlag(size), sizeFlag(256<<20)
	asJSON := false
	cmd := &cobra.Command{
		Use:     string(w),
		Short:   short,
		Example: fmt.Sprintf("  pastectl bench %s --connections 100 --size %d --contenders paste,epoll", w, size),
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Size, cfg.PoolSize = int(bytes), int64(poolSize)
			return runBench(e, cfg, asJSON, func(cfg bench.Config) (*bench.Report, error) {
				return bench.Run(cmd.Context(), cfg)
			})
		},
	}
	f := cmd.Flags()
	addBenchFlags(f, &cfg, bench.Names(), &asJSON)
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

// runBench runs a benchmark with its progress shown, and prints the report.
func runBench(e env, cfg bench.Config, asJSON bool, run func(bench.Config) (*bench.Report, error)) error {
	p := newBenchProgress(e.stderr)
	cfg.Progress = p.update
	report, err := run(cfg)
	p.close()
	if errors.Is(err, context.Canceled) {
		return errors.New("bench: interrupted; everything is cleaned up")
	}
	if err != nil {
		return err
	}
	if asJSON {
		return e.printJSON(report)
	}
	return report.WriteTable(e.stdout)
}

// addBenchFlags adds the flags of every benchmark.
func addBenchFlags(f *pflag.FlagSet, cfg *bench.Config, contenders []string, asJSON *bool) {
	f.IntVar(&cfg.Connections, "connections", 100, "connections, each with one request outstanding")
	f.StringSliceVar(&cfg.Contenders, "contenders", contenders, "who takes part")
	f.IntVar(&cfg.ServerCPU, "server-cpu", 1, "CPU of the server")
	f.IntVar(&cfg.ClientCPU, "client-cpu", 0, "CPU of the client")
	f.BoolVar(asJSON, "json", false, "print JSON")
	f.DurationVar(&cfg.Duration, "duration", 500*time.Millisecond, "time measured for each contender in each round")
	f.DurationVar(&cfg.Warmup, "warmup", 100*time.Millisecond, "time before it that is not measured")
	f.IntVar(&cfg.Rounds, "rounds", 15, "interleaved rounds")
}

// newBenchHelperCmds are the commands that bench runs itself with, in a process
// per server.
func newBenchHelperCmds(e env) []*cobra.Command {
	return []*cobra.Command{
		{
			Use: "exec CPU PROGRAM [ARG...]", Hidden: true, DisableFlagParsing: true,
			Short: "Run a program on one CPU",
			RunE:  func(_ *cobra.Command, args []string) error { return bench.Exec(args) },
		},
		{
			Use: "server JSON", Hidden: true, DisableFlagParsing: true,
			Short: "Run a contender of the benchmark",
			RunE: func(cmd *cobra.Command, args []string) error {
				return bench.Serve(cmd.Context(), args, e.stdout)
			},
		},
	}
}

// benchProgress shows how a benchmark goes: a bar on a terminal, else a line per
// measurement.
type benchProgress struct {
	out   io.Writer
	bars  *mpb.Progress
	bar   *mpb.Bar
	label atomic.Pointer[string] // left of the bar, read by its renderer
}

func newBenchProgress(out io.Writer) *benchProgress {
	p := &benchProgress{out: out}
	if f, ok := out.(*os.File); ok {
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			p.bars = mpb.New(mpb.WithOutput(out), mpb.WithWidth(30))
		}
	}
	return p
}

const benchBarScale = 1000 // steps of the bar per measurement

// update is called from one goroutine at a time.
func (p *benchProgress) update(b bench.Progress) {
	if b.Done != nil {
		d := b.Done
		line := fmt.Sprintf("round %d of %d: %-8s %9.0f req/s  p99 %.0f µs  server core %.0f%%, client core %.0f%% busy",
			b.Round, b.Rounds, b.Contender, d.RPS, float64(d.Latency.ValueAtQuantile(99))/1000, 100*d.ServerBusy, 100*d.ClientBusy)
		w := p.out
		if p.bars != nil {
			w = p.bars // above the bar
		}
		fmt.Fprintln(w, line)
	}
	if p.bars == nil {
		return
	}
	label := fmt.Sprintf("%s, round %d of %d, %d requests ", b.Contender, b.Round, b.Rounds, b.Requests)
	p.label.Store(&label)
	if p.bar == nil {
		p.bar = p.bars.AddBar(int64(b.Steps)*benchBarScale,
			mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return *p.label.Load() })),
			mpb.AppendDecorators(decor.Percentage(decor.WC{W: 5})))
	}
	at := int64(b.Step) * benchBarScale
	if b.Done == nil && b.Total > 0 {
		at += int64(b.Elapsed) * benchBarScale / int64(b.Total)
	}
	p.bar.SetCurrent(at)
}

func (p *benchProgress) close() {
	if p.bars == nil {
		return
	}
	if p.bar != nil && !p.bar.Completed() {
		p.bar.Abort(true)
	}
	p.bars.Wait()
}
