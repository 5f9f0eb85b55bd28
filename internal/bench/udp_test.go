package bench

import (
	"context"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/loadgen"
)

// TestRunUDP: every server of datagrams answers, and what it answers is counted.
func TestRunUDP(t *testing.T) {
	for _, c := range []struct {
		what loadgen.Workload
		size int
	}{{loadgen.Echo, 64}, {loadgen.Sink, 1024}} {
		cfg := testConfig(t)
		cfg.Workload, cfg.Size, cfg.Connections, cfg.Contenders = c.what, c.size, 20, UDPNames()
		cfg.Rounds, cfg.Duration, cfg.Dir, cfg.PoolSize = 1, 150*time.Millisecond, "/dev/shm", 64<<20
		r, err := RunUDP(context.Background(), cfg)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.HasLen(r.Contenders, len(UDPNames())))
		for _, c := range r.Contenders {
			qt.Check(t, qt.IsTrue(c.RPS.Median > 0), qt.Commentf("%+v", c))
		}
	}
}

func TestRunUDPRefuses(t *testing.T) {
	for want, change := range map[string]func(*Config){
		".*unknown workload.*":      func(c *Config) { c.Workload = loadgen.WAL },
		".*datagrams of 15 bytes.*": func(c *Config) { c.Size = 15 },
		".*datagrams of 1473 .*":    func(c *Config) { c.Size = 1473 },
		".*neither a rate.*":        func(c *Config) { c.Rate = 1 },
	} {
		cfg := Config{Workload: loadgen.Echo, Size: 64, Connections: 1, Contenders: UDPNames()}
		change(&cfg)
		_, err := RunUDP(context.Background(), cfg)
		qt.Check(t, qt.ErrorMatches(err, "bench udp: "+want))
	}
}
