package benchcli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	"github.com/pastenet/paste/internal/bench"
	"github.com/pastenet/paste/internal/bytesize"
	"github.com/spf13/cobra"
)

// NewMatrixCmd is the command that measures a table of workloads, sizes and
// connections.
func NewMatrixCmd(setup Setup) *cobra.Command {
	cfg := bench.Config{Others: setup.Others}
	out := Output{Stdout: setup.Stdout, Progress: setup.Progress}
	poolSize, pick := bytesize.Size(256<<20), ""
	cmd := &cobra.Command{
		Use:   "matrix",
		Short: "A table of workloads, sizes and connections, one after the other",
		Long: `Measure one cell of a table after the other, and print all of them as Markdown:
PASTE's rate as a multiple of each contender's; where a rate is offered, its CPU
time per request.`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			cells, err := pickCells(pick)
			if err != nil {
				return err
			}
			cfg.PoolSize = int64(poolSize)
			if setup.Pastectl != nil {
				if cfg.Exe, err = setup.Pastectl(); err != nil {
					return err
				}
			}
			return runMatrix(cmd.Context(), cfg, out, cells)
		},
	}
	names := bench.Names()
	for _, k := range setup.Others {
		names = append(names, string(k))
	}
	f := cmd.Flags()
	addCommonFlags(f, &cfg, &out, names)
	f.StringVar(&pick, "cells", "", "only those whose names match this regular expression, such as ^wal-1024-")
	f.Var(&poolSize, "pool-size", "size of a pool, on /dev/shm")
	cmd.Example = fmt.Sprintf("  %s matrix --rounds 9 --cells '^wal'", setup.Name)
	return cmd
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

func runMatrix(ctx context.Context, cfg bench.Config, out Output, cells []bench.Cell) error {
	var p *Progress
	cfg.Progress = func(b bench.Progress) { p.Update(b) }
	end := func() {
		if p != nil {
			p.Close()
		}
	}
	done, err := bench.RunMatrix(ctx, cfg, cells, func(n int, c bench.Cell) {
		end()
		fmt.Fprintf(out.Progress, "cell %d of %d: %s\n", n+1, len(cells), c)
		p = NewProgress(out.Progress)
	})
	end()
	if errors.Is(err, context.Canceled) {
		err = errors.New("bench: interrupted; everything is cleaned up")
	}
	if len(done) == 0 {
		return err
	}
	if !out.JSON {
		return errors.Join(bench.WriteMarkdown(out.Stdout, done), err)
	}
	enc := json.NewEncoder(out.Stdout)
	enc.SetIndent("", "  ")
	if jerr := enc.Encode(done); jerr != nil {
		err = errors.Join(err, fmt.Errorf("write JSON: %w", jerr))
	}
	return err
}
