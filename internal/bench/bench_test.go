package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/contender"
	"github.com/pastenet/paste/internal/loadgen"
	"github.com/pastenet/paste/internal/netlab"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// The test binary plays the server processes, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "bench" && os.Args[2] == "server" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		err := Serve(ctx, os.Args[3:], os.Stdout)
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func testConfig(t *testing.T) Config {
	t.Helper()
	var set unix.CPUSet
	qt.Assert(t, qt.IsNil(unix.SchedGetaffinity(0, &set)))
	if !set.IsSet(0) || !set.IsSet(1) {
		t.Fatal("CPUs 0 and 1 are needed")
	}
	return Config{Workload: loadgen.WAL, Connections: 10, Size: 512, Duration: 200 * time.Millisecond, Warmup: 50 * time.Millisecond,
		Rounds: 2, Contenders: []string{"epoll", "go-net"}, ServerCPU: 1, ClientCPU: 0, PoolSize: 32 << 20, Network: Network{Prefix: "bn"}}
}

func TestRun(t *testing.T) {
	cfg := testConfig(t)
	var order []string
	cfg.Progress = func(p Progress) {
		if p.Done != nil {
			order = append(order, fmt.Sprint(p.Round, p.Contender, p.Step))
			qt.Check(t, qt.IsTrue(p.Done.RPS > 0), qt.Commentf("%v", p.Done.RPS))
		}
	}
	var before, after unix.CPUSet
	qt.Assert(t, qt.IsNil(unix.SchedGetaffinity(0, &before)))
	r, err := Run(context.Background(), cfg)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(unix.SchedGetaffinity(0, &after)))
	qt.Check(t, qt.Equals(after, before))
	qt.Check(t, qt.DeepEquals(order, []string{"1epoll1", "1go-net2", "2go-net3", "2epoll4"}))

	b, err := json.Marshal(r)
	qt.Assert(t, qt.IsNil(err))
	var keys map[string]any
	qt.Assert(t, qt.IsNil(json.Unmarshal(b, &keys)))
	for _, k := range []string{"workload", "connections", "size", "contenders", "ratios"} {
		qt.Check(t, qt.IsNotNil(keys[k]), qt.Commentf("%s", k))
	}
	cs := keys["contenders"].([]any)
	qt.Assert(t, qt.HasLen(cs, 2))
	c := cs[0].(map[string]any)
	qt.Check(t, qt.Equals(c["name"], any("epoll")))
	for outer, inner := range map[string][]string{"rps": {"median", "min", "max"}, "latency_us": {"p50", "p99", "p999"}} {
		for _, k := range inner {
			v, ok := c[outer].(map[string]any)[k].(float64)
			qt.Check(t, qt.IsTrue(ok && v > 0), qt.Commentf("%s.%s", outer, k))
		}
	}
	busy, ok := c["server_core_busy"].(float64)
	qt.Check(t, qt.IsTrue(ok && busy >= 0 && busy <= 1), qt.Commentf("%v", busy))
	calls, ok := c["syscalls_per_1000"].(float64)
	qt.Check(t, qt.IsTrue(ok && calls > 1000), qt.Commentf("%v", c["syscalls_per_1000"]))
	qt.Check(t, qt.IsNil(cs[1].(map[string]any)["syscalls_per_1000"]))

	var table bytes.Buffer
	qt.Assert(t, qt.IsNil(r.WriteTable(&table)))
	qt.Check(t, qt.StringContains(table.String(), "go-net"))

	left, err := filepath.Glob("/dev/shm/" + dirPrefix + fmt.Sprint(os.Getpid()))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(left, 0))
}

func TestCancelled(t *testing.T) {
	cfg := testConfig(t)
	cfg.Duration = time.Hour
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cfg.Progress = func(p Progress) {
		if p.Requests > 0 {
			cancel()
		}
	}
	_, err := Run(ctx, cfg)
	qt.Assert(t, qt.ErrorIs(err, context.Canceled))
}

func TestAServerThatFailsIsQuoted(t *testing.T) {
	cfg := testConfig(t)
	cfg.PoolSize = 1 // no pool is that small
	_, err := Run(context.Background(), cfg)
	qt.Assert(t, qt.ErrorMatches(err, "bench: start epoll: the server ended before it was ready: exit status 1; it said: bench server: .*size.*"))
}

func TestBadConfig(t *testing.T) {
	good := Config{Workload: loadgen.RPC, Connections: 1, Size: 1, Duration: time.Second, Rounds: 1, Contenders: []string{"epoll"}, ServerCPU: 1}
	for want, change := range map[string]func(*Config){
		"unknown workload":       func(c *Config) { c.Workload = "x" },
		"0 connections":          func(c *Config) { c.Connections = 0 },
		"size of -1":             func(c *Config) { c.Size = -1 },
		"duration of 1ms":        func(c *Config) { c.Duration = time.Millisecond },
		"0 rounds":               func(c *Config) { c.Rounds = 0 },
		"rate of -1":             func(c *Config) { c.Rate = -1 },
		"no contender":           func(c *Config) { c.Contenders = nil },
		`unknown contender "x"`:  func(c *Config) { c.Contenders = []string{"x"} },
		`"epoll" is named twice`: func(c *Config) { c.Contenders = []string{"epoll", "epoll"} },
		"no rate can be offered": func(c *Config) { c.Workload, c.Rate = loadgen.Sink, 1 },
		"1 MiB at most for echo": func(c *Config) { c.Workload, c.Size = loadgen.Echo, 2<<20 },
		"share CPU 1":            func(c *Config) { c.ClientCPU = 1 },
		"CPU 1000 can't be used": func(c *Config) { c.ServerCPU = 1000 },
	} {
		cfg := good
		change(&cfg)
		_, err := Run(context.Background(), cfg)
		qt.Check(t, qt.IsNotNil(err))
		qt.Check(t, qt.StringContains(fmt.Sprint(err), want))
	}
}

func TestSweepKeepsTheLiving(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, dirPrefix+"999999999")
	alive := filepath.Join(dir, dirPrefix+"1")
	other := filepath.Join(dir, dirPrefix+"x")
	for _, d := range []string{dead, alive, other} {
		qt.Assert(t, qt.IsNil(os.Mkdir(d, 0o700)))
	}
	sweep(dir)
	_, err := os.Stat(dead)
	qt.Check(t, qt.ErrorIs(err, os.ErrNotExist))
	for _, d := range []string{alive, other} {
		_, err := os.Stat(d)
		qt.Check(t, qt.IsNil(err))
	}
}

// At an offered rate a saturated client, a growing queue and a lack of connections
// are told.
func TestRemarks(t *testing.T) {
	r := &Report{Rate: 1000, Seconds: 1, Rounds: 2}
	for want, c := range map[string]ContenderReport{
		"500 of 1000 requests/s were answered": {RPS: Spread{Median: 500}, ServerSaturated: true, ClientBusy: 1},
		"the rate was not offered":             {RPS: Spread{Median: 500}, ClientBusy: 1},
		"it adds to the latencies":             {RPS: Spread{Median: 1000}, ClientBusy: 0.95},
		"300 requests waited for a free conn":  {RPS: Spread{Median: 1000}, Queued: 300},
	} {
		got := r.remarks(&c)
		qt.Assert(t, qt.HasLen(got, 1), qt.Commentf("%q", got))
		qt.Check(t, qt.StringContains(got[0], want))
	}
	qt.Check(t, qt.HasLen(r.remarks(&ContenderReport{RPS: Spread{Median: 990}, ServerBusy: 0.3, ClientBusy: 0.4, Queued: 3}), 0))
}

func TestOfferedRate(t *testing.T) {
	cfg := testConfig(t)
	cfg.Contenders, cfg.Rate, cfg.Duration = []string{"epoll"}, 2000, time.Second
	r, err := Run(context.Background(), cfg)
	qt.Assert(t, qt.IsNil(err))
	c := r.Contenders[0]
	qt.Check(t, qt.Equals(r.Rate, 2000))
	qt.Check(t, qt.IsTrue(c.RPS.Median > 0 && c.ServerCPU > 0), qt.Commentf("%+v", c))
	var table bytes.Buffer
	qt.Assert(t, qt.IsNil(r.WriteTable(&table)))
	qt.Check(t, qt.StringContains(table.String(), "2000 requests/s offered"))
}

func sample(rps, busy float64, latencies ...int64) Sample {
	h := hdrhistogram.New(1000, 1e10, 3)
	for _, l := range latencies {
		_ = h.RecordValue(l)
	}
	return Sample{RPS: rps, ServerBusy: busy, ClientBusy: 0.95, ServerCPU: 1e6 * busy / rps, Latency: h}
}

func TestReport(t *testing.T) {
	cfg := &Config{Workload: loadgen.RPC, Contenders: []string{"epoll", "paste"}, Rounds: 3, Duration: time.Second}
	r := newReport(cfg, map[string][]Sample{
		"paste": {sample(300, 0.5, 1000), sample(100, 0.6, 2000), sample(200, 0.7, 1e6)},
		"epoll": {sample(90, 0.99, 5000), sample(100, 1, 5000), sample(110, 1, 5000)},
	}, map[string]float64{"paste": 60})
	qt.Check(t, qt.DeepEquals(r.Ratios, map[string]float64{"epoll": 200.0 / 110}))
	qt.Check(t, qt.DeepEquals(r.CPURatios, map[string]float64{"epoll": 3500 / (1e6 / 110.0)}))
	p := r.Contenders[1]
	qt.Check(t, qt.Equals(p.RPS, Spread{Median: 200, Min: 100, Max: 300}))
	qt.Check(t, qt.Equals(*p.Syscalls, 60))
	qt.Check(t, qt.IsTrue(p.Latency.P50 >= 2 && p.Latency.P50 < 2.1), qt.Commentf("%v", p.Latency.P50))
	qt.Check(t, qt.IsTrue(p.Latency.P999 > 990), qt.Commentf("%v", p.Latency.P999))
	qt.Check(t, qt.IsFalse(p.ServerSaturated))
	qt.Check(t, qt.IsTrue(r.Contenders[0].ServerSaturated))
	qt.Check(t, qt.IsNil(r.Contenders[0].Syscalls))
	var b strings.Builder
	qt.Assert(t, qt.IsNil(r.WriteTable(&b)))
	qt.Check(t, qt.StringContains(b.String(), "paste: the generator saturates first (server core 60% busy)"))
	qt.Check(t, qt.StringContains(b.String(), "1.82×"))
	qt.Check(t, qt.Equals(median([]float64{4, 1, 3, 2}), 2.5))
}

// PASTE's ring server and the others take part in what is not HTTP.
func TestStreams(t *testing.T) {
	for _, w := range []loadgen.Workload{loadgen.Echo, loadgen.Sink} {
		cfg := testConfig(t)
		cfg.Workload, cfg.Rounds, cfg.Connections, cfg.Contenders = w, 1, 3, []string{Paste, PasteCopy, "epoll", "io_uring", "go-net"}
		r, err := Run(context.Background(), cfg)
		qt.Assert(t, qt.IsNil(err))
		for _, c := range r.Contenders {
			qt.Check(t, qt.IsTrue(c.RPS.Median > 0 && c.Gbits > 0), qt.Commentf("%s: %+v", w, c))
			qt.Check(t, qt.Equals(c.Errors, 0))
		}
		qt.Check(t, qt.HasLen(r.Ratios, 4))
		var table bytes.Buffer
		qt.Assert(t, qt.IsNil(r.WriteTable(&table)))
		qt.Check(t, qt.StringContains(table.String(), "Gbit/s"))
	}
}

func TestCommandsOfPaste(t *testing.T) {
	line := func(name string) string {
		c := candidate{cfg: &Config{Workload: loadgen.WAL, Size: 1, PoolSize: 7}, name: name, exe: "exe", pool: "pool", lab: &netlab.Lab{ServerDev: "nic0"}}
		return strings.Join(c.command(), " ")
	}
	qt.Check(t, qt.StringContains(line(Paste), "exe serve http "))
	qt.Check(t, qt.StringContains(line(Paste), "--nic nic0"))
	qt.Check(t, qt.Not(qt.StringContains(line(PasteCopy), "--nic")))
	qt.Check(t, qt.StringContains(line(PasteNoSpin), "--spin 0s"))
	qt.Check(t, qt.StringContains(line(PastePersistCopy), "--persist copy"))
}

// nginx takes part where it is installed; where it is not, the error says so.
func TestNginx(t *testing.T) {
	for _, w := range []loadgen.Workload{loadgen.RPC, loadgen.WAL} {
		cfg := testConfig(t)
		cfg.Workload, cfg.Rounds, cfg.Contenders, cfg.Size = w, 1, []string{Nginx}, 5000
		r, err := Run(context.Background(), cfg)
		if _, missing := exec.LookPath(Nginx); missing != nil {
			qt.Check(t, qt.ErrorIs(err, errNoNginx))
			continue
		}
		qt.Assert(t, qt.IsNil(err))
		c := r.Contenders[0]
		qt.Check(t, qt.IsTrue(c.RPS.Median > 0), qt.Commentf("%+v", c))
		qt.Check(t, qt.Equals(c.Errors+c.Non2xx, 0))
	}
}

func TestServeArgumentsRoundTrip(t *testing.T) {
	in := ServeConfig{Kind: contender.Epoll, Addr: netip.MustParseAddrPort("[fd00::1]:80"), ResponseBytes: 3, Pool: "/x", PoolSize: 4}
	args := in.args()
	var out ServeConfig
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(args[2]), &out)))
	qt.Check(t, qt.Equals(out, in))
	qt.Check(t, qt.IsNotNil(Serve(context.Background(), []string{"nonsense"}, os.Stdout)))
	qt.Check(t, qt.IsNotNil(Serve(context.Background(), nil, os.Stdout)))
}

func TestParseCounts(t *testing.T) {
	for line, want := range map[string]counts{
		`{"requests":5,"syscalls":6}`: {Requests: 5, Syscalls: 6},
		`{"event":"stopped","port":{"nic":"x","stats":{"syscalls":7}},"http":{"requests":8,"x":1}}`: {Requests: 8, Syscalls: 7},
	} {
		got, ok := parseCounts([]byte(line))
		qt.Check(t, qt.IsTrue(ok))
		qt.Check(t, qt.Equals(got, want))
	}
	_, ok := parseCounts([]byte("ready: x"))
	qt.Check(t, qt.IsFalse(ok))
}

func TestCPUTimes(t *testing.T) {
	a, err := readCPUTimes(0, 0)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(a.total[0] > 0), qt.Commentf("%v", a.total[0]))
	_, err = readCPUTimes(0, 9999)
	qt.Check(t, qt.ErrorMatches(err, "no CPU 9999 .*"))
	s, c := cpuTimes{idle: [2]uint64{5, 0}, total: [2]uint64{10, 0}}.busySince(cpuTimes{})
	qt.Check(t, qt.Equals(s, 0.5))
	qt.Check(t, qt.Equals(c, 0))
}
