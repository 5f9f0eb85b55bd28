package bench

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	mode := ""
	if r.BusyPoll {
		mode = ", both sides busy-polling"
	}
	if r.Wire {
		mode += ", frames as on a wire"
	}
	if r.Rate > 0 {
		mode += fmt.Sprintf(", %.0f requests/s offered", r.Rate)
	}
	if r.Title != "" {
		mode = ", " + r.Title + mode
	}
	fmt.Fprintf(w, "%s, %d connections, %d bytes%s: %d rounds of %gs\n\n", r.Workload, r.Connections, r.Size, mode, r.Rounds, r.Seconds)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\treq/s\tmin\tmax\tp50 µs\tp99 µs\tp99.9 µs\tserver core\tclient core\tCPU µs/req\tsyscalls/1000\tpaste's rate is\tpaste's CPU is\tGbit/s\t")
	for _, c := range r.Contenders {
		calls, gbits := "-", ""
		if c.Gbits > 0 {
			gbits = fmt.Sprintf("%.2f", c.Gbits)
		}
		if c.Syscalls != nil {
			calls = fmt.Sprintf("%.0f", *c.Syscalls)
		}
		latency := "-\t-\t-" // a stream has none
		if c.Latency.P50 > 0 {
			latency = fmt.Sprintf("%.1f\t%.1f\t%.1f", c.Latency.P50, c.Latency.P99, c.Latency.P999)
		}
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%.0f\t%s\t%.0f%%\t%.0f%%\t%.2f\t%s\t%s\t%s\t%s\t\n", c.Name,
			c.RPS.Median, c.RPS.Min, c.RPS.Max, latency,
			100*c.ServerBusy, 100*c.ClientBusy, c.ServerCPU, calls, times(r.Ratios, c.Name), times(r.CPURatios, c.Name), gbits)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	for i := range r.Contenders {
		for _, remark := range r.remarks(&r.Contenders[i]) {
			fmt.Fprintf(w, "\n%s: %s", r.Contenders[i].Name, remark)
		}
	}
	_, err := fmt.Fprintln(w)
	return err
}

func times(ratios map[string]float64, name string) string {
	if v, ok := ratios[name]; ok {
		return fmt.Sprintf("%.2f×", v)
	}
	return ""
}

// remarks say what a contender's figures do not mean.
func (r *Report) remarks(c *ContenderReport) (all []string) {
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	switch generator := c.ClientBusy >= Saturated; {
	case r.Rate > 0 && c.RPS.Median < 0.98*r.Rate && generator && !c.ServerSaturated:
		say("the generator saturates first: the rate was not offered (%.0f of %.0f requests/s).", c.RPS.Median, r.Rate)
	case r.Rate > 0 && c.RPS.Median < 0.98*r.Rate:
		say("%.0f of %.0f requests/s were answered: the latencies are those of a queue that grows.", c.RPS.Median, r.Rate)
	case r.Rate > 0 && generator:
		say("the generator's core is %.0f%% busy: it adds to the latencies.", 100*c.ClientBusy)
	case r.Rate > 0:
	case !c.ServerSaturated && generator:
		say("the generator saturates first (server core %.0f%% busy): the server has room left.", 100*c.ServerBusy)
	case !c.ServerSaturated:
		say("the server core is not saturated (%.0f%% busy): the rate is bound by latency.", 100*c.ServerBusy)
	}
	if answered := c.RPS.Median * r.Seconds * float64(r.Rounds); float64(c.Queued) > answered/100 {
		say("%d requests waited for a free connection, which is part of their latency: more --connections would be needed.", c.Queued)
	}
	if n := c.Errors + c.Non2xx; n > 0 {
		say("%d requests failed or were refused.", n)
	}
	return all
}
