package benchcli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/pastenet/paste/internal/bench"
	"github.com/pastenet/paste/internal/bytesize"
	"github.com/pastenet/paste/internal/contender"
	"github.com/spf13/cobra"
)

// Gnet is the contender of the matrix that the module bench/ serves.
const Gnet contender.Kind = "gnet"

// matrix is a command under way.
type matrix struct {
	setup     Setup
	cfg       bench.Config
	out       Output
	poolSize  bytesize.Size
	dir, pick string
	companion string
	resume    bool
	quick     bool
}

// NewMatrixCmd is the command that measures a table of workloads, sizes and
// connections.
func NewMatrixCmd(setup Setup) *cobra.Command {
	m := &matrix{setup: setup, out: Output{Stdout: setup.Stdout, Progress: setup.Progress}, poolSize: 256 << 20}
	cmd := &cobra.Command{
		Use:   "matrix",
		Short: "The table of docs/performance.md: every bar, and whether it is reached",
		Long: `Measure one cell of a table after the other: workload, size and connections, with
PASTE, the same without spinning, and those with whom it is compared. Print for each
bar the ratio of the rates, that of the server's CPU time per request, and the same
without spinning, with the middle half of the rounds in parentheses, the floor, the
aim, and whether they are reached.

After each cell the results are written to the directory --out: matrix.json,
matrix.md and matrix.svg. A cell that fails is in the table with its error, and does not keep
the others from being measured. With --resume those that are in matrix.json
already are not measured again, so that a long run may be interrupted, or made in
pieces with --cells.

The contender gnet and the plot need libraries that pastectl has not; they are in the
program pastebench. It is taken from beside this program or from PATH; in a checkout it
is built for the time of the run. Without it the bars that are about gnet say that it
is missing.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return m.run(cmd.Context()) },
	}
	f := cmd.Flags()
	addCommonFlags(f, &m.cfg, &m.out, nil)
	f.Lookup("contenders").Usage = "who takes part in every cell, instead of those that it is about"
	f.StringVar(&m.pick, "cells", "", "only those whose names match this regular expression, such as ^wal-1024-")
	f.Var(&m.poolSize, "pool-size", "size of a pool, on /dev/shm")
	f.StringVar(&m.dir, "out", "bench-matrix", "directory for matrix.json, matrix.md and matrix.svg; '' writes none")
	f.BoolVar(&m.resume, "resume", false, "go on with what is in --out")
	f.BoolVar(&m.quick, "quick", false, "one short round, to see that everything runs: the figures mean nothing")
	f.BoolVar(&m.cfg.Wire, "wire", false, "frames as on a wire: "+wireUsage)
	if setup.Pastectl == nil {
		f.StringVar(&m.companion, "pastebench", "", "the program pastebench; 'none' does without")
	}
	cmd.Example = fmt.Sprintf("  %[1]s matrix\n  %[1]s matrix --rounds 9 --cells '^wal' --resume", setup.Name)
	return cmd
}

func (m *matrix) run(ctx context.Context) (err error) {
	cells, err := pickCells(m.pick)
	if err != nil {
		return err
	}
	if m.quick {
		m.cfg.Rounds, m.cfg.Duration, m.cfg.Warmup = 1, 300*time.Millisecond, 20*time.Millisecond
	}
	m.cfg.PoolSize, m.cfg.Others = int64(m.poolSize), bench.Others{Kinds: []contender.Kind{Gnet}}
	report, err := m.begin()
	if err != nil {
		return err
	}
	plot := m.setup.Plot
	if m.setup.Pastectl != nil {
		if m.cfg.Exe, err = m.setup.Pastectl(); err != nil {
			return err
		}
	} else if m.dir != "" || bench.NeedsAny(cells, Gnet) {
		found, release, err := findPastebench(ctx, m.companion, m.out.Progress)
		if err != nil && m.companion != "" && m.companion != noPastebench || ctx.Err() != nil {
			return err
		}
		defer release()
		m.cfg.Others.Exe, plot = found, plotBy(ctx, found)
		if err != nil {
			fmt.Fprintf(m.out.Progress, "%v\n", err)
			report.Absent, plot = map[string]string{string(Gnet): "it needs pastebench"}, nil
		}
	}
	runErr := m.measure(ctx, cells, report, plot)
	if len(report.Cells) == 0 {
		return runErr
	}
	return errors.Join(m.print(report), runErr)
}

// begin says what was measured before.
func (m *matrix) begin() (*bench.MatrixReport, error) {
	if m.dir == "" {
		if m.resume {
			return nil, errors.New("--resume: there is no --out to go on with")
		}
		return new(bench.MatrixReport), nil
	}
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return nil, fmt.Errorf("--out: %w", err)
	}
	path := m.file("json")
	report, err := bench.ReadMatrix(path)
	if err == nil && len(report.Cells) > 0 && !m.resume {
		err = fmt.Errorf("%s has the results of a run: go on with it (--resume), remove it, or name another directory (--out)", path)
	}
	if err == nil {
		report.Absent = nil
	}
	return report, err
}

func (m *matrix) file(kind string) string { return filepath.Join(m.dir, "matrix."+kind) }

func (m *matrix) measure(ctx context.Context, cells []bench.Cell, report *bench.MatrixReport, plot func(from, to string) error) error {
	var p *Progress
	run := bench.MatrixRun{Config: m.cfg, Cells: cells}
	run.Progress = func(b bench.Progress) { p.Update(b) }
	end := func() {
		if p != nil {
			p.Close()
		}
	}
	run.Each = func(n int, c bench.Cell) {
		end()
		fmt.Fprintf(m.out.Progress, "cell %d of %d: %s\n", n+1, len(cells), c)
		p = NewProgress(m.out.Progress)
	}
	run.Done = func(r *bench.MatrixReport) error {
		if m.dir == "" {
			return nil
		}
		return errors.Join(r.Write(m.file("json")), r.WriteMarkdownFile(m.file("md")))
	}
	err := bench.RunMatrix(ctx, run, report)
	end()
	if errors.Is(err, context.Canceled) {
		return errors.New("bench: interrupted; everything is cleaned up, and --resume goes on")
	}
	if m.dir != "" && plot != nil && len(report.Cells) > 0 {
		err = errors.Join(err, plot(m.file("json"), m.file("svg")))
	}
	return err
}

func (m *matrix) print(report *bench.MatrixReport) error {
	if m.out.JSON {
		return m.out.writeJSON(report)
	}
	return report.WriteMarkdown(m.out.Stdout)
}

func pickCells(expr string) (cells []bench.Cell, err error) {
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, fmt.Errorf("--cells: %w", err)
	}
	var names []string
	for _, c := range bench.Matrix() {
		names = append(names, c.String())
		if re.MatchString(c.String()) {
			cells = append(cells, c)
		}
	}
	if len(cells) == 0 {
		return nil, fmt.Errorf("--cells %q: matches none of %q", expr, names)
	}
	return cells, nil
}
