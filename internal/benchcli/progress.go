package benchcli

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/pastenet/paste/internal/bench"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sys/unix"
)

// Progress shows how a benchmark goes: a bar on a terminal, else a line per
// measurement.
type Progress struct {
	out   io.Writer
	bars  *mpb.Progress
	bar   *mpb.Bar
	label atomic.Pointer[string] // left of the bar, read by its renderer
}

// NewProgress draws a bar if out is a terminal.
func NewProgress(out io.Writer) *Progress {
	p := &Progress{out: out}
	if f, ok := out.(*os.File); ok {
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			p.bars = mpb.New(mpb.WithOutput(out), mpb.WithWidth(30))
		}
	}
	return p
}

const barScale = 1000 // steps of the bar per measurement

// Update is called from one goroutine at a time.
func (p *Progress) Update(b bench.Progress) {
	if b.Done != nil {
		d := b.Done
		line := fmt.Sprintf("round %d/%d: %-13s %8.0f req/s  p99 %.0f µs  server %.0f%%, client %.0f%%",
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
		p.bar = p.bars.AddBar(int64(b.Steps)*barScale,
			mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return *p.label.Load() })),
			mpb.AppendDecorators(decor.Percentage(decor.WC{W: 5})))
	}
	at := int64(b.Step) * barScale
	if b.Done == nil && b.Total > 0 {
		at += int64(b.Elapsed) * barScale / int64(b.Total)
	}
	p.bar.SetCurrent(at)
}

// Close ends the bar.
func (p *Progress) Close() {
	if p.bars == nil {
		return
	}
	if p.bar != nil && !p.bar.Completed() {
		p.bar.Abort(true)
	}
	p.bars.Wait()
}
