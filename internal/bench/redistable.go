package bench

import (
	"fmt"
	"io"
	"strings"
)

// WriteRedis writes what several runs of RunRedis have given as one table of Markdown:
// PASTE's rate as a multiple of the others'.
func WriteRedis(w io.Writer, reports []*Report) error {
	names := RedisNames()[1:]
	head := []string{"load", "value", "paste, req/s", "p99 µs"}
	for _, name := range names {
		head = append(head, "to "+name)
	}
	t := markdown{append(head, "generator's core")}
	for _, r := range reports {
		p := r.contender(Paste)
		if p == nil {
			continue
		}
		line := []string{r.Title, fmt.Sprintf("%d B", r.Size), fmt.Sprintf("%.0f", p.RPS.Median), fmt.Sprintf("%.0f", p.Latency.P99)}
		for _, name := range names {
			ratio := ""
			if v, ok := r.Compare(Paste, name, Rate); ok {
				ratio = fmt.Sprintf("%.2f", v.Median)
			}
			line = append(line, ratio)
		}
		t = append(t, append(line, fmt.Sprintf("%.0f %%", 100*p.ClientBusy)))
	}
	if len(t) == 1 {
		return nil // nobody to compare with
	}
	return t.withoutEmpty().write(w)
}

// withoutEmpty leaves out columns in which only the header says something.
func (t markdown) withoutEmpty() markdown {
	out := make(markdown, len(t))
	for i := range t[0] {
		empty := true
		for _, line := range t[1:] {
			empty = empty && strings.TrimSpace(line[i]) == ""
		}
		for n := range t {
			if !empty {
				out[n] = append(out[n], t[n][i])
			}
		}
	}
	return out
}
