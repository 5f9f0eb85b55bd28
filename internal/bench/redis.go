package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pastenet/paste/internal/loadgen"
)

// The contenders of RunRedis besides Paste and PasteCopy, each a program of that name
// and "-server". What is written is durable before it is answered (appendfsync always) or,
// by its suffix, within a second.
const (
	Redis    = "redis"
	Valkey   = "valkey"
	everySec = "-everysec"
)

// RedisConfig is a load of Redis's protocol.
type RedisConfig struct {
	Keys       int
	PutPercent int     // of requests that write
	Theta      float64 // skew of the keys' popularity
	Pipeline   int     // requests that a connection sends at once
}

// RedisNames lists all contenders.
func RedisNames() []string {
	return []string{Paste, PasteCopy, Redis, Redis + everySec, Valkey, Valkey + everySec}
}

// RedisHere lists the contenders whose programs are installed.
func RedisHere() []string {
	return slices.DeleteFunc(RedisNames(), func(name string) bool {
		_, err := exec.LookPath(redisProgram(name))
		return !isPaste(name) && err != nil
	})
}

func redisProgram(name string) string { return strings.TrimSuffix(name, everySec) + "-server" }

// RunRedis measures `serve redis` side by side with Redis and Valkey, whose data are in
// cfg.Dir; cfg.Workload and Custom are filled in here.
func RunRedis(ctx context.Context, cfg Config, redis RedisConfig) (*Report, error) {
	for _, name := range cfg.Contenders {
		program := redisProgram(name)
		if _, err := exec.LookPath(program); err != nil && slices.Contains(RedisNames(), name) && !isPaste(name) {
			return nil, fmt.Errorf("bench redis: %s is not installed: install it, or leave %s out of the contenders", program, name)
		}
	}
	if redis.Keys < 1 || redis.PutPercent < 0 || redis.PutPercent > 100 || redis.Theta < 0 || redis.Theta >= 1 || redis.Pipeline < 1 {
		return nil, errors.New("bench redis: want 1 key or more, 0 to 100 % of writes, a skew from 0 to below 1, 1 request at once or more")
	}
	load := func(round int, c *loadgen.Config) {
		c.Workload = loadgen.KV
		c.KV = loadgen.KVConfig{Keys: redis.Keys, PutPercent: redis.PutPercent, Theta: redis.Theta, RESP: true, Pipeline: redis.Pipeline, Seed: uint64(round)}
	}
	cfg.Workload = loadgen.KV
	cfg.Custom = &Custom{
		Names: RedisNames(),
		Title: fmt.Sprintf("%d%% GET and %d%% SET, %d at once, %d keys, Zipf %g, in %s", 100-redis.PutPercent, redis.PutPercent, redis.Pipeline, redis.Keys, redis.Theta, cfg.Dir),
		Load:  func(_ string, round int, c *loadgen.Config) { load(round, c) },
		Command: func(name, exe string, addr netip.AddrPort, nic, dir string) []string {
			return redisCommand(&cfg, name, exe, addr, nic, dir)
		},
		Prepare: func(ctx context.Context, _ string, addr netip.AddrPort) error {
			return cfg.Fill(ctx, addr, func(c *loadgen.Config) { load(0, c) })
		},
	}
	return Run(ctx, cfg)
}

func redisCommand(cfg *Config, name, exe string, addr netip.AddrPort, nic, dir string) []string {
	if isPaste(name) {
		args := []string{exe, "serve", "redis", "--listen", addr.String(),
			"--pool", filepath.Join(dir, "pool"), "--pool-size", strconv.FormatInt(cfg.PoolSize, 10), "--json"}
		if name == Paste {
			args = append(args, "--nic", nic)
		}
		return args
	}
	return AppendRedis(redisProgram(name), strings.HasSuffix(name, everySec), addr, dir)
}

// AppendRedis is the command line of a Redis, or of what is like it, that keeps all writes in
// an append-only file: durable before they are answered, or within a second.
func AppendRedis(program string, everySecond bool, addr netip.AddrPort, dir string) []string {
	path, err := exec.LookPath(program)
	if err != nil {
		path = program
	}
	sync := "always"
	if everySecond {
		sync = "everysec"
	}
	// Without rewriting it spares a fork and a second writer during the measurement.
	return []string{path, "--bind", addr.Addr().String(), "--port", strconv.Itoa(int(addr.Port())), "--protected-mode", "no",
		"--dir", dir, "--save", "", "--appendonly", "yes", "--appendfsync", sync, "--auto-aof-rewrite-percentage", "0"}
}
