package redisd

import (
	"context"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/redis/go-redis/v9"
)

// TestGoRedis uses the server as Go programs do, in both protocols.
func TestGoRedis(t *testing.T) {
	l := open(t, 32<<20, 1, Config{Password: "secret"})
	for _, proto := range []int{2, 3} {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		c := redis.NewClient(&redis.Options{Addr: l.addr, Protocol: proto, Password: "secret", ClientName: "test"})
		defer c.Close()
		qt.Assert(t, qt.IsNil(c.FlushAll(ctx).Err()))
		qt.Assert(t, qt.IsNil(c.Set(ctx, "a", "1", time.Hour).Err()))
		n, err := c.Incr(ctx, "a").Result()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(n, 2))
		ttl, err := c.TTL(ctx, "a").Result()
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.IsTrue(ttl > 0), qt.Commentf("%v", ttl))
		qt.Check(t, qt.ErrorIs(c.Get(ctx, "nothing").Err(), redis.Nil))
		qt.Assert(t, qt.IsNil(c.HSet(ctx, "h", map[string]any{"f": "v", "g": 2}).Err()))
		all, err := c.HGetAll(ctx, "h").Result()
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.DeepEquals(all, map[string]string{"f": "v", "g": "2"}))

		var names []string
		for it := c.Scan(ctx, 0, "*", 1).Iterator(); it.Next(ctx); {
			names = append(names, it.Val())
		}
		qt.Check(t, qt.DeepEquals(names, []string{"a", "h"}))

		// A transaction that another client interferes with is done once more.
		tries := 0
		err = c.Watch(ctx, func(tx *redis.Tx) error {
			if tries++; tries == 1 {
				c.Set(ctx, "a", "10", 0)
			}
			_, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
				p.Incr(ctx, "a")
				return nil
			})
			return err
		}, "a")
		qt.Check(t, qt.ErrorIs(err, redis.TxFailedErr))

		id, err := c.XAdd(ctx, &redis.XAddArgs{Stream: "s", Values: []string{"f", "v"}}).Result()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(c.XGroupCreate(ctx, "s", "g", "0").Err()))
		got, err := c.XReadGroup(ctx, &redis.XReadGroupArgs{Group: "g", Consumer: "c", Streams: []string{"s", ">"}}).Result()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.DeepEquals(got, []redis.XStream{{Stream: "s", Messages: []redis.XMessage{{ID: id, Values: map[string]any{"f": "v"}}}}}))
		acks, err := c.XAck(ctx, "s", "g", id).Result()
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(acks, 1))
	}
}

// run runs a program of Redis against the server.
func run(t *testing.T, l *local, program string, args ...string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(l.addr)
	qt.Assert(t, qt.IsNil(err))
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, append([]string{"-p", port}, args...)...).CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s %q: %s", program, args, out))
	return string(out)
}

func TestRedisCLI(t *testing.T) {
	l := open(t, 32<<20, 1, Config{})
	qt.Check(t, qt.Equals(run(t, l, "redis-cli", "set", "a", "x y"), "OK\n"))
	qt.Check(t, qt.Equals(run(t, l, "redis-cli", "-3", "get", "a"), "x y\n"))
	qt.Check(t, qt.Equals(run(t, l, "redis-cli", "--scan"), "a\n"))
	info := run(t, l, "redis-cli", "info")
	for _, line := range []string{"redis_version:", "maxmemory:", "db0:keys=1"} {
		qt.Check(t, qt.IsTrue(strings.Contains(info, line)), qt.Commentf("%s", line))
	}
}

// TestRedisBenchmark runs all of its tests that we offer.
func TestRedisBenchmark(t *testing.T) {
	l := open(t, 128<<20, 1, Config{})
	for _, pipeline := range []string{"1", "16"} {
		out := run(t, l, "redis-benchmark", "-t", "ping,set,get,incr,hset,mset", "-n", "20000", "-c", "20", "-P", pipeline, "-r", "1000", "-d", "1024", "--csv")
		qt.Check(t, qt.Equals(strings.Count(out, "\n"), 8), qt.Commentf("%s", out))
		qt.Check(t, qt.IsFalse(strings.Contains(out, "rror")), qt.Commentf("%s", out))
	}
}
