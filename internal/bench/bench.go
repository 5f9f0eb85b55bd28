// Package bench measures PASTE against ordinary socket servers on one machine:
// it gives each server a veth pair with two namespaces, runs all of them on one
// CPU, and puts the same load on one after the other from another CPU. Who is
// not measured sleeps.
//
// What is the same for every contender: the CPU of the server and of the receive
// processing of its end of the veth pair (threaded NAPI), the congestion control,
// the client, the log's format and flush instruction, the kind of memory below
// it. Rounds are interleaved and begin with another contender each time, so that
// a drift of the machine hits everyone; as the servers stay, a round can be short,
// and many short rounds are compared better than a few long ones.
package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/pastenet/paste/internal/netlab"
)

// Progress tells where a benchmark is.
type Progress struct {
	Contender     string
	Round, Rounds int // Round counts from 1
	Step, Steps   int // measurements finished, measurements in all
	// Elapsed of Total for the measurement under way, warm-up included.
	Elapsed, Total time.Duration
	Requests       uint64 // acknowledged in this measurement so far
	// Done is set once per measurement, with its outcome.
	Done *Sample
}

// Sample is the outcome of one measurement.
type Sample struct {
	RPS        float64
	Latency    *hdrhistogram.Histogram // nanoseconds
	ServerBusy float64                 // share of the server's CPU that wasn't idle
	ClientBusy float64
	ServerCPU  float64 // busy time of the server's CPU per request, receiving included, microseconds
	Non2xx     uint64
	Errors     uint64
	Queued     uint64 // requests of Rate that found no free connection
}

// dirPrefix is followed by the owner's pid, so that what a killed run left can be
// told from what is in use.
const dirPrefix = "paste-bench-"

// Run runs the benchmark. It needs root. When ctx ends, it stops, cleans up and
// returns ctx's error.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if err := cfg.fill(); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	sweep(cfg.Dir)
	dir := filepath.Join(cfg.Dir, dirPrefix+strconv.Itoa(os.Getpid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer os.RemoveAll(dir)

	// Nothing of ours shall run on the server's CPU.
	release, err := pinProcess(cfg.ClientCPU)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer release()

	candidates := make(map[string]*candidate)
	defer func() {
		for _, s := range candidates {
			s.close()
		}
	}()
	for i, name := range cfg.Contenders {
		s, err := newCandidate(ctx, &cfg, name, filepath.Join(dir, strconv.Itoa(i)))
		if ctx.Err() != nil {
			return nil, fmt.Errorf("bench: %w", context.Cause(ctx))
		}
		if err != nil {
			return nil, fmt.Errorf("bench: start %s: %w", name, err)
		}
		candidates[name] = s
	}

	samples, err := rounds(ctx, &cfg, candidates)
	if err != nil {
		return nil, err
	}
	syscalls := make(map[string]float64)
	for name, s := range candidates {
		counts, err := s.stop()
		if err != nil {
			return nil, fmt.Errorf("bench: stop %s: %w", name, err)
		}
		if counts.Syscalls > 0 && counts.Requests > 0 {
			syscalls[name] = float64(counts.Syscalls) / float64(counts.Requests) * 1000
		}
	}
	return newReport(&cfg, samples, syscalls), nil
}

// rounds measures the candidates in turn, each round beginning with another one.
func rounds(ctx context.Context, cfg *Config, candidates map[string]*candidate) (map[string][]Sample, error) {
	samples := make(map[string][]Sample)
	p := Progress{Rounds: cfg.Rounds, Steps: cfg.Rounds * len(cfg.Contenders)}
	for round := range cfg.Rounds {
		for i := range cfg.Contenders {
			name := cfg.Contenders[(i+round)%len(cfg.Contenders)]
			p.Contender, p.Round = name, round+1
			s, err := candidates[name].measure(ctx, p)
			if ctx.Err() != nil {
				return nil, fmt.Errorf("bench: %w", context.Cause(ctx))
			}
			if err != nil {
				return nil, fmt.Errorf("bench: measure %s: %w", name, err)
			}
			samples[name] = append(samples[name], *s)
			p.Step++
			if cfg.Progress != nil {
				done := p
				done.Done = s
				cfg.Progress(done)
			}
		}
	}
	return samples, nil
}

// sweep removes the pools of runs that were killed.
func sweep(dir string) {
	old, _ := filepath.Glob(filepath.Join(dir, dirPrefix+"*"))
	for _, d := range old {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(d), dirPrefix))
		if err == nil && (pid == os.Getpid() || !netlab.Alive(pid)) {
			_ = os.RemoveAll(d)
		}
	}
}
