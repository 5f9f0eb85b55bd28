package benchcli

import (
	"context"
	"fmt"

	"github.com/pastenet/paste/internal/bench"
	"github.com/pastenet/paste/internal/bytesize"
	"github.com/spf13/cobra"
)

// redisRuns are the runs of one command: each pipeline with each size with each share of
// writes.
type redisRuns struct {
	pipelines, puts []int
	sizes           []string
	keys            int
	theta           float64
}

// NewRedisCmd is the command that compares with Redis.
func NewRedisCmd(setup Setup) *cobra.Command {
	cfg := bench.Config{}
	out := Output{Stdout: setup.Stdout, Progress: setup.Progress}
	poolSize := bytesize.Size(1 << 30)
	var runs redisRuns
	cmd := &cobra.Command{
		Use:   "redis",
		Short: "GET and SET by Redis's protocol, against Redis and Valkey",
		Long: `Measure "pastectl serve redis" side by side with Redis and Valkey, where they are
installed, by the same load of their protocol:

  paste            pastectl serve redis --nic: every write is durable before its answer
  paste-copy       the same without --nic
  redis            redis-server, appendonly yes, appendfsync always: so does it
  redis-everysec   the same, appendfsync everysec: a crash may lose a second
  valkey, valkey-everysec  the same of valkey-server

Each server is filled with all keys first. Of --pipeline, --size and --put several may be
given: all combinations are measured. The append-only files grow until a run ends: with
--pipeline 16 by some gigabytes. On memory (--dir /dev/shm) durable means: what a
process has written stays when it is killed; on a disk, when the machine is.
"pastectl bench --help" says what is the same for everyone.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.PoolSize = int64(poolSize)
			if len(cfg.Contenders) == 0 {
				cfg.Contenders = bench.RedisHere()
			}
			return runs.run(cmd.Context(), cfg, out)
		},
	}
	f := cmd.Flags()
	AddFlags(f, &cfg, &out, nil)
	// Their files grow with every write.
	f.Lookup("rounds").DefValue, cfg.Rounds = "5", 5
	f.Lookup("contenders").Usage = "who takes part (default: paste, paste-copy, and those that are installed)"
	f.IntSliceVar(&runs.pipelines, "pipeline", []int{1}, "requests that a connection sends at once")
	f.StringSliceVar(&runs.sizes, "size", []string{"1KiB"}, "length of a value")
	f.IntSliceVar(&runs.puts, "put", []int{50}, "percentage of requests that write")
	f.IntVar(&runs.keys, "keys", 100000, "number of keys")
	f.Float64Var(&runs.theta, "zipf", 0.99, "skew of the keys' popularity, from 0 (none) to below 1")
	f.StringVar(&cfg.Dir, "dir", "/dev/shm", "where everybody's data are")
	f.Var(&poolSize, "pool-size", "size of PASTE's pool")
	cmd.Example = fmt.Sprintf("  %[1]s redis --pipeline 1,16 --size 64,1KiB --put 0,50,100\n  %[1]s redis --put 100 --dir /var/tmp", setup.Name)
	return cmd
}

func (r *redisRuns) run(ctx context.Context, cfg bench.Config, out Output) error {
	var reports []*bench.Report
	for _, pipeline := range r.pipelines {
		for _, text := range r.sizes {
			for _, put := range r.puts {
				var size bytesize.Size
				if err := size.Set(text); err != nil {
					return fmt.Errorf("--size: %w", err)
				}
				cfg.Size = int(size)
				report, err := measure(cfg, out, func(cfg bench.Config) (*bench.Report, error) {
					return bench.RunRedis(ctx, cfg, bench.RedisConfig{Keys: r.keys, PutPercent: put, Theta: r.theta, Pipeline: pipeline})
				})
				if err == nil && !out.JSON {
					err = report.WriteTable(out.Stdout)
				}
				if err != nil {
					return err
				}
				reports = append(reports, report)
			}
		}
	}
	switch {
	case out.JSON:
		return out.writeJSON(reports)
	case len(reports) > 1:
		return bench.WriteRedis(out.Stdout, reports)
	}
	return nil
}
