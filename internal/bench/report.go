package bench

import (
	"slices"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/pastenet/paste/internal/contender"
)

// Saturated is the share of busy time from which on a CPU counts as saturated.
const Saturated = 0.90

// Report is the outcome of a benchmark. Its JSON form is an interface.
type Report struct {
	Workload    string            `json:"workload"`
	Title       string            `json:"title,omitempty"`
	Connections int               `json:"connections"`
	Size        int               `json:"size"`
	BusyPoll    bool              `json:"busy_poll"`
	Wire        bool              `json:"wire,omitempty"`
	Rate        float64           `json:"offered_rps,omitempty"` // 0: a closed loop
	Rounds      int               `json:"rounds"`
	Seconds     float64           `json:"seconds_per_round"`
	Contenders  []ContenderReport `json:"contenders"`
	// Ratios of PASTE's rate to the other's in the same round, medians over the
	// rounds.
	Ratios map[string]float64 `json:"ratios"`
	// CPURatios are the same of the server's CPU time per request: below 1, PASTE
	// needs less.
	CPURatios map[string]float64 `json:"cpu_ratios"`
}

// ContenderReport is one contender's part.
type ContenderReport struct {
	Name    string  `json:"name"`
	RPS     Spread  `json:"rps"` // over the rounds
	Latency Latency `json:"latency_us"`
	// Gbits is the payload's rate one way in Gbit/s, of echo and sink.
	Gbits float64 `json:"gbit_per_second,omitempty"`
	// Medians over the rounds, 0 to 1.
	ServerBusy float64 `json:"server_core_busy"`
	ClientBusy float64 `json:"client_core_busy"`
	// ServerCPU is the busy time of the server's core per request, in microseconds.
	ServerCPU float64 `json:"server_cpu_us_per_request"`
	// Syscalls is null when the server can't count them.
	Syscalls *float64 `json:"syscalls_per_1000"`
	Non2xx   uint64   `json:"non_2xx"`
	// Queued requests of an offered rate came when no connection was free.
	Queued uint64 `json:"queued,omitempty"`
	Errors uint64 `json:"errors"`
	// ServerSaturated is false when the server's CPU had time left: then its
	// rate is no measure of what it can do.
	ServerSaturated bool `json:"server_saturated"`
	// PerRound has the figures that ratios are made of.
	PerRound []Round `json:"per_round"`
}

// Round is one measurement.
type Round struct {
	RPS       float64 `json:"rps"`
	ServerCPU float64 `json:"server_cpu_us_per_request"`
}

// Figure is what of two contenders is compared.
type Figure string

const (
	Rate Figure = "rate"
	CPU  Figure = "cpu" // the server's, per request
)

// Ratio of a figure of two contenders within each round.
type Ratio struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"` // a quarter of the rounds was below
	High   float64 `json:"high"`
}

// Compare divides who's figure by to's. ok is false unless both were measured.
func (r *Report) Compare(who, to string, of Figure) (ratio Ratio, ok bool) {
	var ratios []float64
	a, b := r.contender(who), r.contender(to)
	if a == nil || b == nil {
		return Ratio{}, false
	}
	for i := range min(len(a.PerRound), len(b.PerRound)) {
		if d := b.PerRound[i].figure(of); d > 0 {
			ratios = append(ratios, a.PerRound[i].figure(of)/d)
		}
	}
	if len(ratios) == 0 {
		return Ratio{}, false
	}
	slices.Sort(ratios)
	n := len(ratios)
	return Ratio{Median: median(ratios), Low: ratios[n/4], High: ratios[n-1-n/4]}, true
}

func (r *Report) contender(name string) *ContenderReport {
	for i := range r.Contenders {
		if r.Contenders[i].Name == name {
			return &r.Contenders[i]
		}
	}
	return nil
}

func (r *Round) figure(of Figure) float64 {
	if of == CPU {
		return r.ServerCPU
	}
	return r.RPS
}

// Spread of a value over the rounds.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// Latency in microseconds, over all rounds.
type Latency struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
}

// newReport sums up; syscalls are those of a server per 1000 requests, where it
// counts them.
func newReport(cfg *Config, samples map[string][]Sample, syscalls map[string]float64) *Report {
	r := &Report{Workload: string(cfg.Workload), Connections: cfg.Connections, Size: cfg.Size, BusyPoll: cfg.BusyPoll, Wire: cfg.Wire,
		Rate: cfg.Rate, Rounds: cfg.Rounds, Seconds: cfg.Duration.Seconds(), Ratios: map[string]float64{}, CPURatios: map[string]float64{}}
	for _, name := range cfg.Contenders {
		c := newContenderReport(name, samples[name])
		if cfg.raw() != contender.NotRaw {
			c.Gbits = c.RPS.Median * float64(cfg.Size) * 8 / 1e9
		}
		if calls, ok := syscalls[name]; ok {
			c.Syscalls = &calls
		}
		r.Contenders = append(r.Contenders, c)
	}
	if cfg.Custom != nil {
		r.Title = cfg.Custom.Title
	}
	if len(samples[Paste]) == 0 {
		return r
	}
	for _, c := range r.Contenders {
		if rate, ok := r.Compare(Paste, c.Name, Rate); ok && c.Name != Paste {
			r.Ratios[c.Name] = rate.Median
		}
		if cpu, ok := r.Compare(Paste, c.Name, CPU); ok && c.Name != Paste {
			r.CPURatios[c.Name] = cpu.Median
		}
	}
	return r
}

func newContenderReport(name string, samples []Sample) ContenderReport {
	c := ContenderReport{Name: name}
	column := func(f func(*Sample) float64) []float64 {
		var v []float64
		for i := range samples {
			v = append(v, f(&samples[i]))
		}
		return v
	}
	rps := column(func(s *Sample) float64 { return s.RPS })
	c.RPS = Spread{Median: median(rps), Min: slices.Min(rps), Max: slices.Max(rps)}
	c.ServerBusy = median(column(func(s *Sample) float64 { return s.ServerBusy }))
	c.ClientBusy = median(column(func(s *Sample) float64 { return s.ClientBusy }))
	c.ServerCPU = median(column(func(s *Sample) float64 { return s.ServerCPU }))
	c.ServerSaturated = c.ServerBusy >= Saturated
	all := hdrhistogram.Import(samples[0].Latency.Export())
	for _, s := range samples[1:] {
		all.Merge(s.Latency)
	}
	us := func(q float64) float64 { return float64(all.ValueAtQuantile(q)) / 1000 }
	c.Latency = Latency{P50: us(50), P99: us(99), P999: us(99.9)}
	for _, s := range samples {
		c.Non2xx += s.Non2xx
		c.Errors += s.Errors
		c.Queued += s.Queued
		c.PerRound = append(c.PerRound, Round{s.RPS, s.ServerCPU})
	}
	return c
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	if n%2 == 1 {
		return v[n/2]
	}
	return (v[n/2-1] + v[n/2]) / 2
}
