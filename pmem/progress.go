package pmem

// progressStep is how many frames are found between two reports.
const progressStep = 1 << 16

// progress reports to Options.Progress; its zero value is silent.
type progress struct {
	report func(done, total uint64)
	next   uint32
}

// step reports how many frames are known to be in use, now and then.
func (pr *progress) step(t *frameTable) {
	if pr.report != nil && t.used >= pr.next {
		pr.next = t.used + progressStep
		pr.report(uint64(t.used), uint64(t.end-t.first))
	}
}

// finish reports the whole.
func (pr *progress) finish(total uint64) {
	if pr.report != nil {
		pr.report(total, total)
	}
}
