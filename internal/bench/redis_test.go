package bench

import (
	"context"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// Redis is measured where it is installed; where it is not, the error says so.
func TestRunRedis(t *testing.T) {
	cfg := testConfig(t)
	cfg.Rounds, cfg.Duration, cfg.Connections, cfg.Size, cfg.Contenders, cfg.Dir = 1, 300*time.Millisecond, 3, 50, []string{Redis, Redis + everySec}, "/dev/shm"
	load := RedisConfig{Keys: 100, PutPercent: 50, Pipeline: 4}
	r, err := RunRedis(context.Background(), cfg, load)
	if _, missing := exec.LookPath("redis-server"); missing != nil {
		qt.Check(t, qt.ErrorMatches(err, "bench redis: redis-server is not installed: install it, or leave redis out of the contenders"))
		qt.Check(t, qt.IsFalse(slices.Contains(RedisHere(), Redis)))
	} else {
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.HasLen(r.Contenders, 2))
		for _, c := range r.Contenders {
			qt.Check(t, qt.IsTrue(c.RPS.Median > 0 && c.Latency.P50 > 0), qt.Commentf("%+v", c))
			qt.Check(t, qt.Equals(c.Errors+c.Non2xx, 0))
		}
		qt.Check(t, qt.StringContains(r.Title, "4 at once"))
		qt.Check(t, qt.SliceContains(RedisHere(), Redis))
	}
	load.Pipeline, cfg.Contenders = 0, []string{Paste}
	_, err = RunRedis(context.Background(), cfg, load)
	qt.Check(t, qt.ErrorMatches(err, "bench redis: want .*"))
}

func TestRedisCommands(t *testing.T) {
	line := func(name string) string {
		addr := netip.MustParseAddrPort("10.0.0.1:80")
		return strings.Join(redisCommand(&Config{PoolSize: 7}, name, "exe", addr, "nic0", "/dir"), " ")
	}
	qt.Check(t, qt.Equals(line(Paste), "exe serve redis --listen 10.0.0.1:80 --pool /dir/pool --pool-size 7 --json --nic nic0"))
	qt.Check(t, qt.Not(qt.StringContains(line(PasteCopy), "--nic")))
	qt.Check(t, qt.StringContains(line(Redis), "redis-server --bind 10.0.0.1 --port 80 "))
	qt.Check(t, qt.StringContains(line(Redis), "--appendonly yes --appendfsync always"))
	qt.Check(t, qt.StringContains(line(Valkey+everySec), "valkey-server "))
	qt.Check(t, qt.StringContains(line(Valkey+everySec), "--appendfsync everysec"))
}
