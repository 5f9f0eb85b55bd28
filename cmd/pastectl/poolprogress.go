package main

import (
	"io"
	"os"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sys/unix"
)

// poolProgress is a bar for long work on a pool, on a terminal; elsewhere
// nothing is shown.
type poolProgress struct {
	label string
	mu    sync.Mutex // work that was given up may still report
	bars  *mpb.Progress
	bar   *mpb.Bar
}

func newPoolProgress(out io.Writer, label string) *poolProgress {
	p := &poolProgress{label: label}
	if f, ok := out.(*os.File); ok {
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			p.bars = mpb.New(mpb.WithOutput(out), mpb.WithWidth(40))
		}
	}
	return p
}

// update shows how far the work is. A total of 0 means that it is
// not known.
func (p *poolProgress) update(done, total uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bars == nil {
		return
	}
	if p.bar == nil {
		p.bar = p.bars.AddBar(0, mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(p.label)),
			mpb.AppendDecorators(decor.Percentage(decor.WC{W: 5})))
	}
	p.bar.SetTotal(int64(total), false)
	p.bar.SetCurrent(int64(done))
}

// close takes the bar away. It may be called again.
func (p *poolProgress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bars == nil {
		return
	}
	if p.bar != nil {
		p.bar.Abort(true)
	}
	p.bars.Wait()
	p.bars = nil
}
