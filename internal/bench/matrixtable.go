package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/pastenet/paste/internal/loadgen"
)

// WriteMarkdown writes a matrix as two tables: the bars with the ratios that were
// measured, and the figures that the ratios are made of.
func (m *MatrixReport) WriteMarkdown(w io.Writer) error {
	if err := m.WriteBars(w); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	return m.WriteFigures(w)
}

// WriteBars writes the first of these tables.
func (m *MatrixReport) WriteBars(w io.Writer) error {
	fmt.Fprintf(w, "%s\n\n", m.Machine)
	t := markdown{{"work", "", "to", "rate", "CPU", "CPU without spinning", "floor", "aim", ""}}
	for i := range m.Cells {
		m.Cells[i].writeBars(&t, m.Absent)
	}
	return t.write(w)
}

// WriteFigures writes the second.
func (m *MatrixReport) WriteFigures(w io.Writer) error {
	t := markdown{{"work", "", "req/s", "p50 µs", "p99 µs", "CPU µs/req", "server core", "generator's core", "rounds"}}
	for i := range m.Cells {
		m.Cells[i].writeFigures(&t)
	}
	return t.write(w)
}

// writeBars writes a line for each bar, or for a cell without any.
func (c *CellReport) writeBars(t *markdown, absent map[string]string) {
	bars := c.Bars
	if len(bars) == 0 {
		bars = []Bar{rate(toEpoll, 0, 0)}
	}
	for _, bar := range bars {
		line := c.judge(bar, absent)
		*t = append(*t, []string{c.title(), bar.Who, bar.To,
			line.rate, line.cpu, line.quiet, bound(bar, bar.Floor), bound(bar, bar.Aim), line.verdict})
	}
}

func bound(b Bar, v float64) string {
	if v == 0 {
		return ""
	}
	s := fmt.Sprintf("%s %.2f", b.sign(), v)
	if b.Of == CPU {
		s += " CPU"
	}
	return s
}

// title says what a cell measures.
func (c Cell) title() string {
	size := fmt.Sprintf("%d B", c.Size)
	if c.Size >= 1024 && c.Size%1024 == 0 {
		size = fmt.Sprintf("%d KiB", c.Size/1024)
	}
	s := fmt.Sprintf("%s %s, %d", c.Workload, size, c.Connections)
	if c.Share > 0 {
		s += fmt.Sprintf(", %.0f %% of epoll's rate", 100*c.Share)
	}
	if c.Wire {
		s += ", wire"
	}
	return s
}

// judgement is what came out for a bar, for people.
type judgement struct {
	rate, cpu, quiet string // ratios; quiet is CPU without spinning
	verdict          string
	ratio            Ratio // that the bar is about
	measured         bool
	reached          bool
}

func (c *CellReport) judge(bar Bar, absent map[string]string) (j judgement) {
	if c.Report == nil {
		j.verdict = "failed: " + c.Error
		return j
	}
	for _, name := range []string{bar.Who, bar.To} {
		if c.Report.contender(name) == nil {
			j.verdict = "not measured"
			if why := absent[name]; why != "" {
				j.verdict += ": " + why
			}
			return j
		}
	}
	j.rate, j.cpu = c.ratio(bar.Who, bar.To, Rate), c.ratio(bar.Who, bar.To, CPU)
	switch {
	case bar.Who == Paste && c.Report.contender(PasteNoSpin) != nil:
		j.quiet = c.ratio(PasteNoSpin, bar.To, CPU)
	case c.Workload == loadgen.Echo || c.Workload == loadgen.Sink: // nobody spins there
		j.quiet = j.cpu
	}
	j.ratio, j.measured = c.Report.Compare(bar.Who, bar.To, bar.Of)
	j.reached = bar.reached(j.ratio.Median, bar.Floor)
	switch {
	case bar.Floor == 0:
	case !j.reached:
		j.verdict = "**missed**"
	case bar.Aim != 0 && bar.reached(j.ratio.Median, bar.Aim):
		j.verdict = "reached, and the aim"
	default:
		j.verdict = "reached"
	}
	if limit := c.generatorLimits(bar); limit != "" {
		j.verdict = strings.TrimPrefix(j.verdict+"; "+limit, "; ")
	}
	return j
}

// generatorLimits says that a rate is the generator's, if it is.
func (c *CellReport) generatorLimits(bar Bar) string {
	var names []string
	for _, name := range []string{bar.Who, bar.To} {
		k := c.Report.contender(name)
		if c.Share == 0 && k.ClientBusy >= Saturated && !k.ServerSaturated {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "the generator limits " + strings.Join(names, " and ")
}

func (c *CellReport) ratio(who, to string, of Figure) string {
	r, ok := c.Report.Compare(who, to, of)
	if !ok {
		return ""
	}
	if len(c.Report.contender(who).PerRound) < 4 {
		return fmt.Sprintf("%.2f", r.Median)
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", r.Median, r.Low, r.High)
}

func (c *CellReport) writeFigures(t *markdown) {
	if c.Report == nil {
		return
	}
	for _, k := range c.Report.Contenders {
		p50, p99 := "", "" // a stream has none
		if k.Latency.P50 > 0 {
			p50, p99 = fmt.Sprintf("%.0f", k.Latency.P50), fmt.Sprintf("%.0f", k.Latency.P99)
		}
		*t = append(*t, []string{c.title(), k.Name, fmt.Sprintf("%.0f", k.RPS.Median), p50, p99, fmt.Sprintf("%.2f", k.ServerCPU),
			fmt.Sprintf("%.0f %%", 100*k.ServerBusy), fmt.Sprintf("%.0f %%", 100*k.ClientBusy), fmt.Sprintf("%d × %.2g s", c.Report.Rounds, c.Report.Seconds)})
	}
}

// Missed lists the bars that were measured and not reached, as "wal-1024-100 paste/epoll".
func (m *MatrixReport) Missed() (names []string) {
	for i := range m.Cells {
		c := &m.Cells[i]
		for _, bar := range c.Bars {
			if j := c.judge(bar, m.Absent); j.measured && !j.reached {
				names = append(names, fmt.Sprintf("%s %s/%s", c, bar.Who, bar.To))
			}
		}
	}
	return slices.Compact(names)
}

// Line is a bar of a matrix with the ratio that was measured.
type Line struct {
	Bar
	Title   string // of the cell, and who is compared with whom
	Ratio   Ratio
	Reached bool
}

// Lines lists the bars that were measured, in the order of the table.
func (m *MatrixReport) Lines() (lines []Line) {
	for i := range m.Cells {
		c := &m.Cells[i]
		for _, bar := range c.Bars {
			j := c.judge(bar, m.Absent)
			if !j.measured || bar.Floor == 0 {
				continue
			}
			title := fmt.Sprintf("%s: %s / %s", c.title(), bar.Who, bar.To)
			if bar.Of == CPU {
				title += ", CPU"
			}
			lines = append(lines, Line{bar, title, j.ratio, j.reached})
		}
	}
	return lines
}
