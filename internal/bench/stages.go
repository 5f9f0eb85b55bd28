package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pastenet/paste/internal/ksample"
	"github.com/pastenet/paste/internal/loadgen"
	"github.com/pastenet/paste/pasteapi"
)

// The stages of a segment's way, in its order. Those of the ring are measured by
// the ring (pasteapi.Options.Stages), those of the kernel by sampling.
var stageNames = []string{
	stageDriver, stageXDP, stageXsk, stageHarvest, stageTicket, stageInject, stageTagger,
	stageTCP, stageVerdict, stageDeliver, stageRead, stageEmit,
}

const (
	stageDriver  = "driver"       // NAPI, and IP and GRO of what is not steered
	stageXDP     = "xdp"          // the steering program
	stageXsk     = "af_xdp"       // the copy into the frame, which zero-copy has not
	stageHarvest = "harvest"      // descriptors, refilling
	stageTicket  = "parse+ticket" // and joining the batch
	stageInject  = "inject"       // the TAP, up to TCP, without the tagger
	stageTagger  = "tagger"
	stageTCP     = "tcp" // without the verdict; with the ACKs that it sends
	stageVerdict = "verdict"
	stageDeliver = "deliver"
	stageRead    = "read" // recv
	stageEmit    = "emit"
	stageSend    = "send" // sendmsg of replies: no stage of receiving
)

// kernelStages are the functions at which a stage begins.
var kernelStages = map[string]string{
	"veth_poll": stageDriver, "__xsk_map_redirect": stageXsk, "tun_chr_write_iter": stageInject,
	"tcp_v4_rcv": stageTCP, "tcp_v4_do_rcv": stageTCP, "tcp_recvmsg": stageRead,
	"tcp_sendmsg": stageSend,
}

// programStages are the same of BPF programs, which the kernel names
// bpf_prog_<tag>_<name>, the name cut.
var programStages = map[string]string{"paste_steer": stageXDP, "paste_tag": stageTagger, "paste_ingress": stageTagger, "paste_verdict": stageVerdict}

// stageOf is the stage that a function of the kernel begins.
func stageOf(function string) string {
	if rest, ok := strings.CutPrefix(function, "bpf_prog_"); ok {
		_, name, _ := strings.Cut(rest, "_")
		for program, stage := range programStages {
			if name != "" && strings.HasPrefix(program, name) {
				return stage
			}
		}
	}
	return kernelStages[function]
}

// scenario is a load under which stages are measured.
type scenario struct {
	name     string
	workload loadgen.Workload
	size     int
	conns    int
	segment  int // bytes of payload in a segment
	wire     bool
	receive  pasteapi.ReceiveMode
}

// mss is the payload of a full segment at an MTU of 1500: IPv4, TCP with timestamps.
const mss = 1448

var scenarios = []scenario{
	{"steered, full segments", loadgen.Sink, 64 << 10, 8, mss, true, pasteapi.ReceiveSteered},
	{"steered, 1 KiB messages", loadgen.Echo, 1024, 100, 1024, true, pasteapi.ReceiveSteered},
	{"copied, 1 KiB messages", loadgen.Echo, 1024, 100, 1024, false, pasteapi.ReceiveCopied},
	{"read, full segments", loadgen.Sink, 64 << 10, 8, mss, false, pasteapi.ReceiveAuto},
}

// StagesReport is what the stages cost. Its JSON form is an interface.
type StagesReport struct {
	Machine   Machine           `json:"machine"`
	Rounds    int               `json:"rounds"`
	Seconds   float64           `json:"seconds_per_round"`
	Scenarios []StagesOfAWay    `json:"scenarios"`
	Computed  map[string]Budget `json:"computed"` // by scenario: what a zero-copy NIC would give
}

// StagesOfAWay are the stages under one load, in nanoseconds per segment: medians over
// the rounds.
type StagesOfAWay struct {
	Name         string             `json:"name"`
	SegmentBytes int                `json:"segment_bytes"` // of payload
	Stages       map[string]float64 `json:"stages_ns"`
	Sum          float64            `json:"sum_ns"`
	Core         float64            `json:"core_ns"` // busy time of the server's core, with sending, waiting and the application
	Segments     float64            `json:"segments_per_second"`
}

// RunStages measures the stages of receiving; of cfg it takes the CPUs, the duration, the
// rounds, and what is about files and progress.
func RunStages(ctx context.Context, cfg Config) (*StagesReport, error) {
	cfg.Contenders, cfg.PoolSize = []string{Paste}, 128<<20
	r := &StagesReport{Rounds: cfg.Rounds, Seconds: cfg.Duration.Seconds()}
	r.Machine.read()
	r.Machine.Measured = time.Now().UTC().Truncate(time.Second)
	samples := map[string][]StagesOfAWay{}
	for round := range cfg.Rounds {
		for i, sc := range scenarios {
			c := cfg
			c.Workload, c.Size, c.Connections, c.Wire = sc.workload, sc.size, sc.conns, sc.wire
			if err := c.fill(); err != nil {
				return nil, fmt.Errorf("bench stages: %w", err)
			}
			c.hooks.serve = func(s *ServeConfig) { s.Receive, s.Stages = sc.receive, true }
			p := Progress{Contender: sc.name, Round: round + 1, Rounds: cfg.Rounds, Step: round*len(scenarios) + i, Steps: cfg.Rounds * len(scenarios)}
			got, err := measureStages(ctx, &c, sc, p)
			if ctx.Err() != nil {
				return nil, fmt.Errorf("bench: %w", context.Cause(ctx))
			}
			if err != nil {
				return nil, fmt.Errorf("bench stages: %s: %w", sc.name, err)
			}
			samples[sc.name] = append(samples[sc.name], *got)
		}
	}
	for _, sc := range scenarios {
		r.Scenarios = append(r.Scenarios, medianStages(sc, samples[sc.name]))
	}
	r.compute()
	return r, nil
}

// measureStages is one round under one load, with a server of its own.
func measureStages(ctx context.Context, cfg *Config, sc scenario, p Progress) (_ *StagesOfAWay, err error) {
	sweep(cfg.Dir)
	dir := filepath.Join(cfg.Dir, dirPrefix+strconv.Itoa(os.Getpid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	release, err := pinProcess(cfg.ClientCPU)
	if err != nil {
		return nil, err
	}
	defer release()
	c, err := newCandidate(ctx, cfg, Paste, filepath.Join(dir, "pool"))
	if err != nil {
		return nil, err
	}
	defer c.close()
	symbols, err := ksample.ReadSymbols() // with this server's programs
	if err != nil {
		return nil, err
	}
	k := &kernelTime{symbols: symbols, stage: map[uint64]string{}, count: map[string]int{}}
	cfg.hooks.window = func(open bool) error {
		if open {
			return k.start(cfg.ServerCPU)
		}
		return k.stop()
	}
	sample, err := c.measure(ctx, p)
	err = errors.Join(err, k.stop())
	if err != nil {
		return nil, err
	}
	last, err := c.stop()
	if err != nil {
		return nil, err
	}
	if p.Step++; cfg.Progress != nil {
		p.Done = sample
		cfg.Progress(p)
	}
	return stagesOf(sc, sample, last.Stats, k)
}

// kernelTime counts samples by stage.
type kernelTime struct {
	symbols *ksample.Symbols
	stage   map[uint64]string // of addresses seen
	count   map[string]int
	all     int
	sampler *ksample.Sampler
}

func (k *kernelTime) start(cpu int) (err error) {
	k.sampler, err = ksample.Start(cpu, k.sample)
	return err
}

func (k *kernelTime) stop() error {
	s := k.sampler
	if s == nil {
		return nil
	}
	k.sampler = nil
	return s.Stop()
}

// sample counts for the innermost stage.
func (k *kernelTime) sample(s *ksample.Sample) {
	k.all++
	for _, ip := range s.Stack {
		stage, known := k.stage[ip]
		if !known {
			stage = stageOf(k.symbols.Find(ip))
			k.stage[ip] = stage
		}
		if stage != "" {
			k.count[stage]++
			return
		}
	}
}

// stagesOf brings together what was sampled in the window and what the ring has
// measured in its whole life, each by the segments of that time.
func stagesOf(sc scenario, sample *Sample, stats *pasteapi.Stats, k *kernelTime) (*StagesOfAWay, error) {
	if stats == nil || k.all == 0 {
		return nil, errors.New("the server has told nothing, or nothing was sampled")
	}
	perRequest := float64(sc.size) / float64(sc.segment)
	s := &StagesOfAWay{Stages: map[string]float64{}, Segments: sample.RPS * perRequest}
	s.Core = 1e3 * sample.ServerCPU / perRequest
	for stage, n := range k.count {
		s.Stages[stage] = float64(n) / float64(k.all) * 1e9 / s.Segments
	}
	delete(s.Stages, stageSend)
	segments := float64(stats.SteeredBytes+stats.CopiedBytes+stats.ReadBytes) / float64(sc.segment)
	for stage, ns := range map[string]uint64{stageHarvest: stats.HarvestNs, stageTicket: stats.TicketNs, stageDeliver: stats.DeliverNs, stageEmit: stats.EmitNs} {
		s.Stages[stage] = float64(ns) / segments
	}
	return s, nil
}

func medianStages(sc scenario, rounds []StagesOfAWay) StagesOfAWay {
	column := func(f func(*StagesOfAWay) float64) float64 {
		var v []float64
		for i := range rounds {
			v = append(v, f(&rounds[i]))
		}
		return median(v)
	}
	m := StagesOfAWay{Name: sc.name, SegmentBytes: sc.segment, Stages: map[string]float64{},
		Core: column(func(s *StagesOfAWay) float64 { return s.Core }), Segments: column(func(s *StagesOfAWay) float64 { return s.Segments })}
	for _, stage := range stageNames {
		if !m.has(stage) {
			continue
		}
		if v := column(func(s *StagesOfAWay) float64 { return s.Stages[stage] }); v > 0 {
			m.Stages[stage] = v
			m.Sum += v
		}
	}
	return m
}

// has says whether a stage belongs to a way; a few samples stray.
func (s *StagesOfAWay) has(stage string) bool {
	steered := strings.HasPrefix(s.Name, "steered")
	switch stage {
	case stageXDP, stageXsk, stageHarvest, stageTicket, stageInject, stageTagger:
		return steered
	case stageVerdict, stageDeliver:
		return !strings.HasPrefix(s.Name, "read")
	case stageRead:
		return strings.HasPrefix(s.Name, "read")
	}
	return slices.Contains(stageNames, stage)
}
