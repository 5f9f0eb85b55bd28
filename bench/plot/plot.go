// Package plot draws what `pastectl bench matrix` has measured.
package plot

import (
	"errors"
	"fmt"
	"image/color"

	"github.com/pastenet/paste/internal/bench"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Okabe and Ito's colours, which everybody can tell apart.
var (
	blue       = color.RGBA{0x00, 0x72, 0xb2, 0xff}
	vermillion = color.RGBA{0xd5, 0x5e, 0x00, 0xff}
	grey       = color.Gray{0x90}
)

const (
	width   = 22 * vg.Centimeter
	margin  = 3 * vg.Centimeter
	perLine = 0.6 * vg.Centimeter
)

// points are ratios, from the top, with the quarters of the rounds beside them.
type points struct {
	plotter.XYs
	plotter.XErrors
}

func (p *points) add(x, y, low, high float64) {
	p.XYs = append(p.XYs, plotter.XY{X: x, Y: y})
	p.XErrors = append(p.XErrors, struct{ Low, High float64 }{x - low, high - x})
}

// Matrix draws the ratios of the matrix in one file into another, whose name says how:
// .svg, .png or .pdf.
func Matrix(from, to string) error {
	m, err := bench.ReadMatrix(from)
	if err != nil {
		return err
	}
	lines := m.Lines()
	if len(lines) == 0 {
		return errors.New("plot: no bar was measured")
	}
	p := plot.New()
	p.Title.Text = "PASTE against others: medians and middle halves of ratios within rounds"
	p.X.Label.Text = "ratio of rates, or of CPU time per request where it says CPU; a bar: what is asked"
	p.X.Min = 0
	most := 1.0
	var reached, missed points
	var floors plotter.XYs
	names := make([]string, len(lines))
	for i, l := range lines {
		y := float64(len(lines) - 1 - i)
		names[len(lines)-1-i] = l.Title
		most = max(most, l.Floor, l.Ratio.High)
		floors = append(floors, plotter.XY{X: l.Floor, Y: y})
		if l.Reached {
			reached.add(l.Ratio.Median, y, l.Ratio.Low, l.Ratio.High)
		} else {
			missed.add(l.Ratio.Median, y, l.Ratio.Low, l.Ratio.High)
		}
	}
	one, err := plotter.NewLine(plotter.XYs{{X: 1, Y: -0.5}, {X: 1, Y: float64(len(lines)) - 0.5}})
	if err != nil {
		return fmt.Errorf("plot: %w", err)
	}
	one.Color, one.Dashes = grey, []vg.Length{vg.Points(3)}
	p.Add(one)
	asked, err := plotter.NewScatter(floors)
	if err != nil {
		return fmt.Errorf("plot: %w", err)
	}
	asked.GlyphStyle = draw.GlyphStyle{Color: color.Black, Radius: vg.Points(6), Shape: tick{}}
	p.Add(asked)
	p.Legend.Add("asked", asked)
	if err := errors.Join(add(p, "reached", reached, blue), add(p, "missed", missed, vermillion)); err != nil {
		return err
	}
	p.X.Max = 1.25 * most // room for the legend
	p.Legend.Top = true
	p.NominalY(names...)
	if err := p.Save(width, margin+perLine*vg.Length(len(lines)), to); err != nil {
		return fmt.Errorf("plot: %w", err)
	}
	return nil
}

func add(p *plot.Plot, name string, pts points, c color.Color) error {
	if len(pts.XYs) == 0 {
		return nil
	}
	s, err := plotter.NewScatter(pts.XYs)
	if err != nil {
		return fmt.Errorf("plot: %w", err)
	}
	s.GlyphStyle = draw.GlyphStyle{Color: c, Radius: vg.Points(3), Shape: draw.CircleGlyph{}}
	bars, err := plotter.NewXErrorBars(&pts)
	if err != nil {
		return fmt.Errorf("plot: %w", err)
	}
	bars.Color, bars.Width = c, vg.Points(1.5)
	p.Add(bars, s)
	p.Legend.Add(name, s)
	return nil
}

// tick is a short vertical line.
type tick struct{}

// DrawGlyph implements draw.GlyphDrawer.
func (tick) DrawGlyph(c *draw.Canvas, style draw.GlyphStyle, at vg.Point) {
	c.SetLineStyle(draw.LineStyle{Color: style.Color, Width: vg.Points(1.5)})
	var p vg.Path
	p.Move(vg.Point{X: at.X, Y: at.Y - style.Radius})
	p.Line(vg.Point{X: at.X, Y: at.Y + style.Radius})
	c.Stroke(p)
}
