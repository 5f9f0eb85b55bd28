package bench

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Budget is what is computed for a NIC with zero-copy from what was measured without.
type Budget struct {
	Ns       float64 `json:"ns_per_segment"`
	Segments float64 `json:"segments_per_second_and_core"`
	Gbits    float64 `json:"payload_gbit_per_second_and_core"`
	// Cores that 25 Gbit/s Ethernet would keep busy, full of such segments.
	Cores float64 `json:"cores_at_25_gbe"`
}

const (
	ethernet = 25e9 // bits per second
	// overhead of a segment on the wire, in bytes: TCP with timestamps, IPv4, Ethernet with
	// its check sequence, preamble and gap.
	overhead = 32 + 20 + 14 + 4 + 8 + 12
)

// compute takes off what a NIC with zero-copy does by DMA, and the driver of a veth.
func (r *StagesReport) compute() {
	r.Computed = map[string]Budget{}
	for i := range r.Scenarios {
		s := &r.Scenarios[i]
		if !s.has(stageInject) {
			continue
		}
		ns := s.Sum - s.Stages[stageDriver] - s.Stages[stageXsk]
		if ns <= 0 {
			continue
		}
		b := Budget{Ns: ns, Segments: 1e9 / ns}
		b.Gbits = b.Segments * float64(s.SegmentBytes) * 8 / 1e9
		b.Cores = ethernet / (float64(s.SegmentBytes+overhead) * 8) / b.Segments
		r.Computed[s.Name] = b
	}
}

// WriteTable writes the report for people.
func (r *StagesReport) WriteTable(w io.Writer) error {
	fmt.Fprintf(w, "Nanoseconds per segment on the server's core, medians of %d rounds of %gs\n\n", r.Rounds, r.Seconds)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(name string, cell func(*StagesOfAWay) string) {
		fmt.Fprintf(t, "%s\t", name)
		for i := range r.Scenarios {
			fmt.Fprintf(t, "%s\t", cell(&r.Scenarios[i]))
		}
		fmt.Fprintln(t)
	}
	short := func(s *StagesOfAWay) (way, load string) { way, load, _ = strings.Cut(s.Name, ", "); return way, load }
	line("stage", func(s *StagesOfAWay) string { way, _ := short(s); return way })
	line("", func(s *StagesOfAWay) string { _, load := short(s); return load })
	for _, stage := range stageNames {
		line(stage, func(s *StagesOfAWay) string {
			if v := s.Stages[stage]; s.has(stage) {
				return fmt.Sprintf("%.0f", v)
			}
			return "–"
		})
	}
	line("sum", func(s *StagesOfAWay) string { return fmt.Sprintf("%.0f", s.Sum) })
	line("core, all", func(s *StagesOfAWay) string { return fmt.Sprintf("%.0f", s.Core) })
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	fmt.Fprint(w, "\nThe core does besides: sending of what is echoed, waiting, the application.\n")
	for i := range r.Scenarios {
		s := &r.Scenarios[i]
		if b, ok := r.Computed[s.Name]; ok {
			fmt.Fprintf(w, "\n%s: computed, not measured, for a NIC with zero-copy, without driver and af_xdp:\n"+
				"  %.0f ns, %.2f M segments/s and %.1f Gbit/s of payload for each core;\n"+
				"  25 Gbit/s Ethernet full of them would keep %.1f cores busy, and its driver comes on top.\n",
				s.Name, b.Ns, b.Segments/1e6, b.Gbits, b.Cores)
		}
	}
	return nil
}
