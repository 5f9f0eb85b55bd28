package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/pastenet/paste/internal/contender"
	"golang.org/x/sys/unix"
)

// MatrixReport is a matrix as far as it was measured. Its JSON form is an interface.
type MatrixReport struct {
	Machine Machine      `json:"machine"`
	Cells   []CellReport `json:"cells"`
	// Absent says why contenders that some bars are about did not take part, by name.
	Absent map[string]string `json:"absent,omitempty"`
}

// Machine is where a matrix was measured, and what.
type Machine struct {
	CPU      string    `json:"cpu"`
	CPUs     int       `json:"cpus"`
	Kernel   string    `json:"kernel"`
	Go       string    `json:"go"`
	Revision string    `json:"revision,omitempty"` // of PASTE
	Measured time.Time `json:"measured"`           // when the last cell was
}

// CellReport is a cell with what came out.
type CellReport struct {
	Cell
	Report *Report `json:"report,omitempty"` // nil if it failed
	Error  string  `json:"error,omitempty"`
}

// MatrixRun says how a matrix is measured.
type MatrixRun struct {
	// Config of each cell but for workload, size, connections, rate and wire; without
	// Contenders it has those that the cell needs.
	Config
	Cells []Cell
	// Each, if set, is told of a cell before it is measured.
	Each func(n int, c Cell)
	// Done, if set, is called after each cell; an error of its ends the run.
	Done func(*MatrixReport) error
}

// RunMatrix measures one cell after the other and adds them to m, which may have some
// already: those that were measured are not measured again. A cell that fails does not
// keep the others from being measured; its error is in m, and in what is returned.
func RunMatrix(ctx context.Context, run MatrixRun, m *MatrixReport) error {
	m.Machine.read()
	if _, err := exec.LookPath(Nginx); err != nil {
		if m.Absent == nil {
			m.Absent = map[string]string{}
		}
		m.Absent[Nginx] = "it is not installed"
	}
	var failed []error
	for n, c := range run.Cells {
		c.Wire = run.Wire
		if old := m.find(c.String()); old != nil && old.Report != nil {
			continue
		}
		if run.Each != nil {
			run.Each(n, c)
		}
		r, err := runCell(ctx, run.Config, c, m)
		if ctx.Err() != nil {
			return errors.Join(append(failed, fmt.Errorf("bench: %w", context.Cause(ctx)))...)
		}
		result := CellReport{Cell: c, Report: r}
		if err != nil {
			result.Error = err.Error()
			failed = append(failed, fmt.Errorf("cell %s: %w", c, err))
		}
		m.put(result)
		m.Machine.Measured = time.Now().UTC().Truncate(time.Second)
		if run.Done != nil {
			if err := run.Done(m); err != nil {
				return errors.Join(append(failed, err)...)
			}
		}
	}
	return errors.Join(failed...)
}

func runCell(ctx context.Context, cfg Config, c Cell, m *MatrixReport) (*Report, error) {
	cfg.Workload, cfg.Size, cfg.Connections, cfg.Rate = c.Workload, c.Size, c.Connections, 0
	if len(cfg.Contenders) == 0 {
		cfg.Contenders = slices.DeleteFunc(c.contenders(), func(name string) bool { return m.Absent[name] != "" })
	}
	if c.Share > 0 {
		if of := m.find(c.closed()); of != nil && of.Report != nil {
			if k := of.Report.contender(toEpoll); k != nil {
				cfg.Rate = c.Share * k.RPS.Median
			}
		}
		if cfg.Rate == 0 {
			return nil, fmt.Errorf("epoll's rate in %s is not known: measure that before", c.closed())
		}
	}
	return Run(ctx, cfg)
}

func (m *MatrixReport) find(name string) *CellReport {
	for i := range m.Cells {
		if m.Cells[i].String() == name {
			return &m.Cells[i]
		}
	}
	return nil
}

// put adds a cell, or replaces it.
func (m *MatrixReport) put(c CellReport) {
	if old := m.find(c.String()); old != nil {
		*old = c
		return
	}
	m.Cells = append(m.Cells, c)
	order := map[string]int{}
	for n, c := range Matrix() {
		order[c.String()] = n
	}
	place := func(c *CellReport) int {
		n, known := order[strings.TrimSuffix(c.String(), "-wire")]
		if !known {
			n = len(order)
		}
		if c.Wire {
			n += len(order) + 1
		}
		return n
	}
	slices.SortStableFunc(m.Cells, func(a, b CellReport) int { return place(&a) - place(&b) })
}

// NeedsAny says whether one of the cells needs a contender.
func NeedsAny(cells []Cell, name contender.Kind) bool {
	return slices.ContainsFunc(cells, func(c Cell) bool { return slices.Contains(c.contenders(), string(name)) })
}

// String says where and when, for people.
func (m Machine) String() string {
	s := fmt.Sprintf("%s, %d CPUs, Linux %s, %s, %s", m.CPU, m.CPUs, m.Kernel, m.Go, m.Measured.Format("2006-01-02"))
	if len(m.Revision) >= 12 {
		s += ", revision " + m.Revision[:12]
	}
	return s + "."
}

// read finds out about this machine.
func (m *Machine) read() {
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	m.CPUs, m.Go = runtime.NumCPU(), runtime.Version()
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				m.Revision = s.Value
			}
		}
	}
}
