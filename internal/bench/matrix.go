package bench

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pastenet/paste/internal/loadgen"
)

// Cell is one measurement of a matrix.
type Cell struct {
	Workload    loadgen.Workload `json:"workload"`
	Size        int              `json:"size"`
	Connections int              `json:"connections"`
	// Share of epoll's rate in the same cell without it, which must come before, is
	// offered; 0 is a closed loop.
	Share float64 `json:"offered_share,omitempty"`
	// Floor is the least that PASTE's rate shall be of epoll's; with Share, the most
	// that its CPU time per request shall be. 0: nothing is asked.
	Floor float64 `json:"floor,omitempty"`
}

// Matrix is the table that docs/performance.md is made from.
func Matrix() []Cell {
	return []Cell{
		{Workload: loadgen.WAL, Size: 1024, Connections: 1, Floor: 1.05},
		{Workload: loadgen.WAL, Size: 1024, Connections: 8, Floor: 1.12},
		{Workload: loadgen.WAL, Size: 1024, Connections: 100, Floor: 1.12},
		{Workload: loadgen.WAL, Size: 1024, Connections: 400, Floor: 1.05},
		{Workload: loadgen.WAL, Size: 1024, Connections: 1000, Floor: 1.05},
		{Workload: loadgen.WAL, Size: 8 << 10, Connections: 50, Floor: 1},
		{Workload: loadgen.WAL, Size: 64 << 10, Connections: 20, Floor: 1},
		{Workload: loadgen.RPC, Size: 64, Connections: 100, Floor: 1.08},
		{Workload: loadgen.RPC, Size: 64, Connections: 400, Floor: 1.08},
		{Workload: loadgen.Echo, Size: 64, Connections: 100},
		{Workload: loadgen.Sink, Size: 1024, Connections: 1, Floor: 1},
		{Workload: loadgen.Sink, Size: 64 << 10, Connections: 1, Floor: 1},
		{Workload: loadgen.WAL, Size: 1024, Connections: 100, Share: 0.6, Floor: 0.95},
		{Workload: loadgen.RPC, Size: 64, Connections: 100, Share: 0.6, Floor: 0.95},
	}
}

// String names a cell as a user picks it: "wal-1024-100", "rpc-64-100-60%".
func (c Cell) String() string {
	s := fmt.Sprintf("%s-%d-%d", c.Workload, c.Size, c.Connections)
	if c.Share > 0 {
		s += fmt.Sprintf("-%.0f%%", 100*c.Share)
	}
	return s
}

// closed is the cell whose rate a share is of.
func (c Cell) closed() Cell {
	c.Share, c.Floor = 0, 0
	return c
}

// CellReport is a cell with what came out.
type CellReport struct {
	Cell
	Report *Report `json:"report"`
}

// RunMatrix measures one cell after the other; of cfg the workload, the size, the
// connections and the rate are filled in here. each, if set, is told of a cell before
// it is measured. What was measured before an error is returned with it.
func RunMatrix(ctx context.Context, cfg Config, cells []Cell, each func(n int, c Cell)) (done []CellReport, err error) {
	peak := map[string]float64{} // epoll's, in closed cells
	for n, c := range cells {
		cfg.Workload, cfg.Size, cfg.Connections, cfg.Rate = c.Workload, c.Size, c.Connections, 0
		if c.Share > 0 {
			if cfg.Rate = c.Share * peak[c.closed().String()]; cfg.Rate == 0 {
				return done, fmt.Errorf("bench: cell %s: epoll's rate in %s is not known; measure that before", c, c.closed())
			}
		}
		if each != nil {
			each(n, c)
		}
		r, err := Run(ctx, cfg)
		if err != nil {
			return done, fmt.Errorf("cell %s: %w", c, err)
		}
		done = append(done, CellReport{c, r})
		if i := slices.IndexFunc(r.Contenders, func(c ContenderReport) bool { return c.Name == "epoll" }); i >= 0 && c.Share == 0 {
			peak[c.String()] = r.Contenders[i].RPS.Median
		}
	}
	return done, nil
}

// WriteMarkdown writes a matrix as a table of ratios, PASTE's rate or CPU time to
// each contender's.
func WriteMarkdown(w io.Writer, cells []CellReport) error {
	var names []string
	for _, c := range cells {
		for _, k := range c.Report.Contenders {
			if k.Name != Paste && !slices.Contains(names, k.Name) {
				names = append(names, k.Name)
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| work | size | connections | paste | to %s | floor, to epoll | |\n", strings.Join(names, " | to "))
	b.WriteString("|---|---|---|---|" + strings.Repeat("---|", len(names)) + "---|---|\n")
	for _, c := range cells {
		row := c.figures()
		fmt.Fprintf(&b, "| %s | %d | %d | %s |", row.work, c.Size, c.Connections, row.paste)
		for _, name := range names {
			fmt.Fprintf(&b, " %s |", times(row.ratios, name))
		}
		floor := ""
		if c.Floor > 0 {
			floor = fmt.Sprintf("%s %.2f", row.than, c.Floor)
		}
		fmt.Fprintf(&b, " %s | %s |\n", floor, strings.Join(row.notes, "; "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// row is a cell's line of the table.
type row struct {
	work, paste, than string
	ratios            map[string]float64
	notes             []string
}

func (c *CellReport) figures() row {
	r := row{work: string(c.Workload), ratios: c.Report.Ratios, than: "≥"}
	if c.Share > 0 {
		r.work += fmt.Sprintf(", %.0f %% of epoll's rate", 100*c.Share)
		r.ratios, r.than = c.Report.CPURatios, "≤"
	}
	for _, k := range c.Report.Contenders {
		if k.Name == Paste {
			r.paste = fmt.Sprintf("%.0f/s", k.RPS.Median)
			if c.Share > 0 {
				r.paste = fmt.Sprintf("%.2f µs", k.ServerCPU)
			}
		}
		if k.ClientBusy >= Saturated {
			r.notes = append(r.notes, fmt.Sprintf("%s: generator %.0f %% busy", k.Name, 100*k.ClientBusy))
		}
	}
	if v, ok := r.ratios["epoll"]; ok && c.Floor > 0 && c.missed(v) {
		r.notes = append([]string{"**missed**"}, r.notes...)
	}
	return r
}

func (c Cell) missed(ratio float64) bool {
	if c.Share > 0 {
		return ratio > c.Floor
	}
	return ratio < c.Floor
}
